output "nodes" {
  description = "Each node's addresses and where it is."
  value       = local.running
}

output "names" {
  description = "Each node's name in the DNS."
  value       = var.dns == null ? {} : module.dns[0].names
}

output "addresses" {
  description = "All addresses, for cargo xtask fleet admit: it lets new nodes enrol from them."
  value       = join(" ", flatten([for node in local.running : [node.ipv4, node.ipv6]]))
}
