# The same file in every cloud module: what each node is told, and which ports it needs.

module "config" {
  source          = "../node-config"
  for_each        = var.nodes
  name            = each.key
  region          = each.value.region
  place           = each.value.place != null ? each.value.place : local.places[each.value.region]
  arch            = each.value.arch
  shards          = each.value.shards
  release         = var.common.releases[each.value.release]
  edge_url        = var.common.edge_url
  drain_seconds   = var.common.drain_seconds
  udp_port        = var.common.udp_port
  ssh_public_keys = var.common.ssh_public_keys
  settings        = var.common.settings
  metrics_public  = length(var.metrics_from) > 0
}

locals {
  everyone = ["0.0.0.0/0", "::/0"]

  # What may come in: media from everybody; SSH and metrics only from where they are asked for.
  inbound = {
    for name, config in module.config : name => concat(
      [{ rule = "media", protocol = "udp", first = config.media_ports.first, last = config.media_ports.last, from = local.everyone }],
      length(var.ssh_from) == 0 ? [] : [{ rule = "ssh", protocol = "tcp", first = 22, last = 22, from = var.ssh_from }],
      length(var.metrics_from) == 0 ? [] : [{ rule = "metrics", protocol = "tcp", first = 7980, last = 7980, from = var.metrics_from }],
    )
  }

  # What may go out: media to wherever clients are (with it DNS and time), the edge and packages over TCP.
  outbound = [
    { rule = "udp", protocol = "udp", first = 1, last = 65535 },
    { rule = "https", protocol = "tcp", first = 443, last = 443 },
    { rule = "http", protocol = "tcp", first = 80, last = 80 },
    { rule = "dns", protocol = "tcp", first = 53, last = 53 },
  ]
}
