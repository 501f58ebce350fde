resource "hcloud_firewall" "node" {
  for_each = var.nodes
  name     = "${var.prefix}-${each.key}"
  labels   = { fleet = var.prefix }

  dynamic "rule" {
    for_each = local.inbound[each.key]
    content {
      description = rule.value.rule
      direction   = "in"
      protocol    = rule.value.protocol
      port        = rule.value.first == rule.value.last ? tostring(rule.value.first) : "${rule.value.first}-${rule.value.last}"
      source_ips  = rule.value.from
    }
  }

  dynamic "rule" {
    for_each = local.outbound
    content {
      description     = rule.value.rule
      direction       = "out"
      protocol        = rule.value.protocol
      port            = rule.value.first == rule.value.last ? tostring(rule.value.first) : "${rule.value.first}-${rule.value.last}"
      destination_ips = local.everyone
    }
  }
}

resource "hcloud_server" "node" {
  for_each     = var.nodes
  name         = "${var.prefix}-${each.key}"
  location     = each.value.region
  server_type  = each.value.size
  image        = "debian-13"
  user_data    = module.config[each.key].user_data
  firewall_ids = [hcloud_firewall.node[each.key].id]
  labels       = { fleet = var.prefix }
  # systemd drains the node before the machine goes.
  shutdown_before_deletion = true

  public_net {
    ipv4_enabled = true
    ipv6_enabled = true
  }

  lifecycle {
    # A newer image alone replaces nothing.
    ignore_changes = [image]
    precondition {
      # CAX machines are Arm, all others are not.
      condition     = (each.value.arch == "arm64") == startswith(each.value.size, "cax")
      error_message = "${each.key}: size ${each.value.size} is not ${each.value.arch}."
    }
  }
}
