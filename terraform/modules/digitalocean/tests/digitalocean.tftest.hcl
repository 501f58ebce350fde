mock_provider "digitalocean" {
  source = "../../tests/mocks/digitalocean"
}

variables {
  common = {
    edge_url = "https://meet.example.com"
    releases = {
      stable = {
        version = "1.4.0"
        url     = "https://example.com/v{version}/sfu-node_{version}-1_{arch}.deb"
        sha256 = {
          amd64 = "1111111111111111111111111111111111111111111111111111111111111111"
          arm64 = "2222222222222222222222222222222222222222222222222222222222222222"
        }
      }
    }
  }
  nodes = {
    fra-1 = { region = "fra1", size = "c-4", shards = 4 }
    syd-1 = { region = "syd1", size = "c-2", shards = 1 }
  }
}

run "each_node_where_it_was_asked_for" {
  command = apply

  assert {
    condition     = digitalocean_droplet.node["syd-1"].region == "syd1" && digitalocean_droplet.node["fra-1"].size == "c-4"
    error_message = "each droplet as the map says"
  }
  assert {
    condition     = output.nodes["syd-1"] == { ipv4 = "192.0.2.3", ipv6 = "2001:db8:3::1", region = "syd1" }
    error_message = "both addresses"
  }
  assert {
    condition     = alltrue([for droplet in digitalocean_droplet.node : droplet.graceful_shutdown])
    error_message = "a droplet that goes drains first"
  }
}

run "only_media_comes_in" {
  command = apply

  assert {
    condition     = [for rule in digitalocean_firewall.node["fra-1"].inbound_rule : "${rule.protocol} ${rule.port_range}"] == ["udp 7900-7903"]
    error_message = "nothing but media by default, one port a shard"
  }
  assert {
    condition     = toset([for rule in digitalocean_firewall.node["syd-1"].outbound_rule : "${rule.protocol} ${rule.port_range}"]) == toset(["udp 1-65535", "tcp 443", "tcp 80", "tcp 53"])
    error_message = "out go media, the edge and packages"
  }
  assert {
    condition     = alltrue([for name, droplet in digitalocean_droplet.node : droplet.tags == digitalocean_firewall.node[name].tags])
    error_message = "each droplet behind its own firewall"
  }
}

run "ssh_and_metrics_from_where_they_are_asked_for" {
  command = apply
  variables {
    ssh_from     = ["198.51.100.0/24"]
    metrics_from = ["2001:db8:77::/48"]
  }

  assert {
    condition = alltrue([
      for rule in digitalocean_firewall.node["fra-1"].inbound_rule :
      rule.source_addresses == toset(rule.port_range == "22" ? ["198.51.100.0/24"] : ["2001:db8:77::/48"]) if rule.protocol == "tcp"
    ])
    error_message = "each from its network only"
  }
  assert {
    condition     = length(digitalocean_firewall.node["fra-1"].inbound_rule) == 3
    error_message = "media, SSH and metrics"
  }
}

run "an_architecture_it_does_not_have_is_refused" {
  command = plan
  variables {
    nodes = { fra-1 = { region = "fra1", size = "c-2", arch = "arm64" } }
  }
  expect_failures = [digitalocean_droplet.node]
}

run "a_place_unknown_to_the_module_must_be_given" {
  command = plan
  variables {
    nodes = { moon-1 = { region = "tycho", size = "c-2" } }
  }
  expect_failures = [var.nodes]
}

run "an_unknown_release_is_refused" {
  command = plan
  variables {
    nodes = { fra-1 = { region = "fra1", size = "c-2", release = "next" } }
  }
  expect_failures = [var.nodes]
}

run "the_whole_internet_is_not_let_in" {
  command = plan
  variables {
    ssh_from     = ["0.0.0.0/0"]
    metrics_from = ["::/0"]
  }
  expect_failures = [var.ssh_from, var.metrics_from]
}
