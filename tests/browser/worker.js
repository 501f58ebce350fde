// livekit-client encrypts and decrypts in a worker of its own.

import "livekit-client/e2ee-worker";
