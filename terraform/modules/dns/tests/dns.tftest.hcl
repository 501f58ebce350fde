mock_provider "cloudflare" {}

variables {
  zone_id = "0123456789abcdef0123456789abcdef"
  domain  = "sfu.example.com"
  nodes = {
    fra-1 = { ipv4 = "192.0.2.1", ipv6 = "2001:db8::1" }
    syd-1 = { ipv4 = "192.0.2.3", ipv6 = "2001:db8::3" }
  }
}

run "each_node_has_a_name_for_both_families" {
  command = apply

  assert {
    condition     = cloudflare_dns_record.ipv4["fra-1"].content == "192.0.2.1" && cloudflare_dns_record.ipv6["fra-1"].content == "2001:db8::1"
    error_message = "A and AAAA with the node's addresses"
  }
  assert {
    condition     = output.names == { fra-1 = "fra-1.sfu.example.com", syd-1 = "syd-1.sfu.example.com" }
    error_message = "named after the nodes"
  }
}

run "media_is_never_proxied" {
  command = apply

  assert {
    condition     = !anytrue([for record in concat(values(cloudflare_dns_record.ipv4), values(cloudflare_dns_record.ipv6)) : record.proxied])
    error_message = "Cloudflare's proxy takes no UDP"
  }
}

run "bad_values_are_refused" {
  command = plan
  variables {
    zone_id = "example.com"
    domain  = "SFU"
  }
  expect_failures = [var.zone_id, var.domain]
}
