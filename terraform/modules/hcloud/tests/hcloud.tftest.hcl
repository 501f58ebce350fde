mock_provider "hcloud" {
  source = "../../tests/mocks/hcloud"
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
    hel-1 = { region = "hel1", size = "ccx23", shards = 4 }
    ash-1 = { region = "ash", size = "ccx13", shards = 1 }
  }
}

run "each_node_where_it_was_asked_for" {
  command = apply

  assert {
    condition     = hcloud_server.node["ash-1"].location == "ash" && hcloud_server.node["hel-1"].server_type == "ccx23"
    error_message = "each server as the map says"
  }
  assert {
    condition     = output.nodes["ash-1"] == { ipv4 = "192.0.2.2", ipv6 = "2001:db8:2::1", region = "ash" }
    error_message = "both addresses"
  }
  assert {
    condition     = alltrue([for server in hcloud_server.node : server.shutdown_before_deletion])
    error_message = "a server that goes drains first"
  }
}

run "only_media_comes_in" {
  command = apply

  assert {
    condition     = [for rule in hcloud_firewall.node["hel-1"].rule : "${rule.protocol} ${rule.port}" if rule.direction == "in"] == ["udp 7900-7903"]
    error_message = "nothing but media by default, one port a shard"
  }
  assert {
    condition     = [for rule in hcloud_firewall.node["ash-1"].rule : rule.port if rule.direction == "in"] == ["7900"]
    error_message = "one shard, one port"
  }
  assert {
    condition     = toset([for rule in hcloud_firewall.node["ash-1"].rule : "${rule.protocol} ${rule.port}" if rule.direction == "out"]) == toset(["udp 1-65535", "tcp 443", "tcp 80", "tcp 53"])
    error_message = "out go media, the edge and packages"
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
      for rule in hcloud_firewall.node["hel-1"].rule :
      rule.source_ips == toset(rule.port == "22" ? ["198.51.100.0/24"] : ["2001:db8:77::/48"]) if rule.direction == "in" && rule.protocol == "tcp"
    ])
    error_message = "each from its network only"
  }
  assert {
    condition     = length([for rule in hcloud_firewall.node["hel-1"].rule : rule if rule.direction == "in"]) == 3
    error_message = "media, SSH and metrics"
  }
}

run "a_size_of_another_architecture_is_refused" {
  command = plan
  variables {
    nodes = { hel-1 = { region = "hel1", size = "cax11" } }
  }
  expect_failures = [hcloud_server.node]
}

run "a_place_unknown_to_the_module_must_be_given" {
  command = plan
  variables {
    nodes = { moon-1 = { region = "tycho", size = "ccx13" } }
  }
  expect_failures = [var.nodes]
}

run "an_unknown_release_is_refused" {
  command = plan
  variables {
    nodes = { fra-1 = { region = "hel1", size = "ccx13", release = "next" } }
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
