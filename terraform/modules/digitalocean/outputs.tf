output "nodes" {
  description = "Each node's addresses and where it is."
  value = {
    for name, droplet in digitalocean_droplet.node : name => {
      ipv4   = droplet.ipv4_address
      ipv6   = droplet.ipv6_address
      region = var.nodes[name].region
    }
  }
}
