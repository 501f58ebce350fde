output "user_data" {
  description = "Cloud-init user data."
  value       = "#cloud-config\n${yamlencode(local.cloud_config)}"
}

output "env_file" {
  description = "/etc/meridian/sfu-node.env: what the unit starts the node with."
  value       = local.env_file
}

output "unit_drop_in" {
  description = "/etc/systemd/system/sfu-node.service.d/10-fleet.conf: what the fleet sets over the package's unit."
  value       = local.drop_in
}

output "media_ports" {
  description = "UDP ports clients send to, first and last."
  value       = { first = var.udp_port, last = var.udp_port + var.shards - 1 }
}
