output "nodes" {
  description = "Each node's addresses and where it is."
  value = {
    for name, instance in aws_instance.node : name => {
      ipv4   = instance.public_ip
      ipv6   = one(instance.ipv6_addresses)
      region = var.nodes[name].region
    }
  }
}
