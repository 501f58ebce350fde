mock_provider "hcloud" {
  source = "../../tests/mocks/hcloud"
}

variables {
  edge_url = "https://meet.example.com"
  release = {
    version = "1.4.0"
    url     = "https://example.com/v{version}/sfu-node_{version}-1_{arch}.deb"
    sha256  = { amd64 = "1111111111111111111111111111111111111111111111111111111111111111" }
  }
}

run "two_nodes" {
  command = apply

  assert {
    condition     = toset(keys(output.nodes)) == toset(["fsn-1", "fsn-2"])
    error_message = "both nodes"
  }
  assert {
    condition     = startswith(output.addresses, "192.0.2.2 2001:db8:2::1 ")
    error_message = "their addresses, to be admitted"
  }
}
