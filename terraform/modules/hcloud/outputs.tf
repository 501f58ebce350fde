output "nodes" {
  description = "Each node's addresses and where it is."
  value = {
    for name, server in hcloud_server.node : name => {
      ipv4   = server.ipv4_address
      ipv6   = server.ipv6_address
      region = var.nodes[name].region
    }
  }
}
