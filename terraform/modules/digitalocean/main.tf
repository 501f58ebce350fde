resource "digitalocean_tag" "node" {
  for_each = var.nodes
  name     = "${var.prefix}-${each.key}"
}

resource "digitalocean_droplet" "node" {
  #checkov:skip=CKV_DIO_2: nobody logs in by default; keys that are asked for come with the user data
  for_each  = var.nodes
  name      = "${var.prefix}-${each.key}"
  region    = each.value.region
  size      = each.value.size
  image     = "debian-13-x64"
  user_data = module.config[each.key].user_data
  ipv6      = true
  # The console's agent needs SSH.
  droplet_agent = false
  # systemd drains the node before the machine goes.
  graceful_shutdown = true
  tags              = [digitalocean_tag.node[each.key].id]

  # Behind its firewall from the first packet.
  depends_on = [digitalocean_firewall.node]

  lifecycle {
    # The new node is there before the old one drains; a newer image alone replaces nothing.
    create_before_destroy = true
    ignore_changes        = [image]
    precondition {
      condition     = each.value.arch == "amd64"
      error_message = "${each.key}: DigitalOcean has amd64 machines only."
    }
  }
}

resource "digitalocean_firewall" "node" {
  for_each = var.nodes
  name     = "${var.prefix}-${each.key}"
  tags     = [digitalocean_tag.node[each.key].id]

  dynamic "inbound_rule" {
    for_each = local.inbound[each.key]
    content {
      protocol         = inbound_rule.value.protocol
      port_range       = inbound_rule.value.first == inbound_rule.value.last ? tostring(inbound_rule.value.first) : "${inbound_rule.value.first}-${inbound_rule.value.last}"
      source_addresses = inbound_rule.value.from
    }
  }

  dynamic "outbound_rule" {
    for_each = local.outbound
    content {
      protocol              = outbound_rule.value.protocol
      port_range            = outbound_rule.value.first == outbound_rule.value.last ? tostring(outbound_rule.value.first) : "${outbound_rule.value.first}-${outbound_rule.value.last}"
      destination_addresses = local.everyone
    }
  }
}
