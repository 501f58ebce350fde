//! The forwarder in a small virtual network.
