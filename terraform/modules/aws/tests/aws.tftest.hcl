mock_provider "aws" {
  source = "../../tests/mocks/aws"
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
    fra-1 = { region = "eu-central-1", size = "c7g.xlarge", arch = "arm64", shards = 4 }
    fra-2 = { region = "eu-central-1", size = "c7i.large" }
    iad-1 = { region = "us-east-1", size = "c7i.large" }
  }
}

run "one_block_serves_every_region" {
  command = apply

  assert {
    condition     = aws_instance.node["fra-1"].region == "eu-central-1" && aws_instance.node["iad-1"].region == "us-east-1"
    error_message = "each instance in the region of its node"
  }
  assert {
    condition     = toset(keys(aws_vpc.region)) == toset(["eu-central-1", "us-east-1"])
    error_message = "one network for each region in use"
  }
  assert {
    condition     = aws_subnet.region["us-east-1"].availability_zone_id == "use1-az1"
    error_message = "not the zone that lacks new machines"
  }
  assert {
    condition     = output.nodes["iad-1"] == { ipv4 = "192.0.2.1", ipv6 = "2001:db8:1::1", region = "us-east-1" }
    error_message = "both addresses"
  }
}

run "only_media_comes_in" {
  command = apply

  assert {
    condition = alltrue([
      for rule in aws_vpc_security_group_ingress_rule.node : rule.ip_protocol == "udp" && rule.from_port == 7900
    ])
    error_message = "nothing but media by default"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.node["fra-1 media 0.0.0.0/0"].to_port == 7903 && aws_vpc_security_group_ingress_rule.node["fra-2 media ::/0"].to_port == 7901
    error_message = "one port for each shard of this node"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.node) == 6
    error_message = "one rule for each node and family"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.node : rule.ip_protocol == "udp" || contains([53, 80, 443], rule.to_port)])
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
    condition     = aws_vpc_security_group_ingress_rule.node["iad-1 ssh 198.51.100.0/24"].to_port == 22
    error_message = "SSH from that network"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.node["iad-1 metrics 2001:db8:77::/48"].cidr_ipv6 == "2001:db8:77::/48"
    error_message = "metrics from that network"
  }
  assert {
    condition     = strcontains(aws_instance.node["iad-1"].user_data, "[::]:7980")
    error_message = "the node listens where the firewall opens"
  }
}

run "metadata_and_disk_are_closed" {
  command = apply

  assert {
    condition = alltrue([
      for instance in aws_instance.node : instance.metadata_options[0].http_tokens == "required" && instance.metadata_options[0].http_put_response_hop_limit == 1
    ])
    error_message = "IMDSv2 only, and not through a hop"
  }
  assert {
    condition     = alltrue([for instance in aws_instance.node : instance.root_block_device[0].encrypted])
    error_message = "the disk holds the node's key"
  }
}

run "a_place_unknown_to_the_module_must_be_given" {
  command = plan
  variables {
    nodes = { moon-1 = { region = "tycho", size = "c7i.large" } }
  }
  expect_failures = [var.nodes]
}

run "an_unknown_release_is_refused" {
  command = plan
  variables {
    nodes = { fra-1 = { region = "eu-central-1", size = "c7i.large", release = "next" } }
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
