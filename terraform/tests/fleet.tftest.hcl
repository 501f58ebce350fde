mock_provider "aws" {
  source = "./tests/mocks/aws"
}
mock_provider "hcloud" {
  source = "./tests/mocks/hcloud"
}
mock_provider "digitalocean" {
  source = "./tests/mocks/digitalocean"
}
mock_provider "cloudflare" {}

variables {
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
  fleet = {
    fra-1 = { cloud = "aws", region = "eu-central-1", size = "c7g.large", arch = "arm64" }
    iad-1 = { cloud = "aws", region = "us-east-1", size = "c7i.large" }
    hel-1 = { cloud = "hcloud", region = "hel1", size = "ccx13" }
    syd-1 = { cloud = "digitalocean", region = "syd1", size = "c-2" }
  }
}

run "one_map_serves_every_cloud" {
  command = apply
  variables {
    dns = { zone_id = "0123456789abcdef0123456789abcdef", domain = "sfu.example.com" }
  }

  assert {
    condition     = toset(keys(output.nodes)) == toset(["fra-1", "hel-1", "iad-1", "syd-1"])
    error_message = "every node of the map, and no other"
  }
  assert {
    condition     = output.nodes["hel-1"] == { ipv4 = "192.0.2.2", ipv6 = "2001:db8:2::1", region = "hel1" }
    error_message = "each with its addresses and its region"
  }
  assert {
    condition     = output.names["syd-1"] == "syd-1.sfu.example.com"
    error_message = "each with its name"
  }
  assert {
    condition     = length(split(" ", output.addresses)) == 8
    error_message = "both addresses of each node are admitted"
  }
}

run "without_a_zone_there_are_no_names" {
  command = apply

  assert {
    condition     = length(output.names) == 0
    error_message = "no zone, no records"
  }
}

run "an_unknown_cloud_is_refused" {
  command = plan
  variables {
    fleet = { moon-1 = { cloud = "moon", region = "tycho", size = "large" } }
  }
  expect_failures = [var.fleet]
}

run "an_unknown_release_is_refused" {
  command = plan
  variables {
    fleet = { hel-1 = { cloud = "hcloud", region = "hel1", size = "ccx13", release = "next" } }
  }
  expect_failures = [var.fleet]
}

run "the_edge_is_reached_by_tls_only" {
  command = plan
  variables {
    edge_url = "http://meet.example.com"
  }
  expect_failures = [var.edge_url]
}

run "ssh_without_keys_is_refused" {
  command = plan
  variables {
    ssh = { from = ["192.0.2.0/24"], public_keys = [] }
  }
  expect_failures = [var.ssh]
}
