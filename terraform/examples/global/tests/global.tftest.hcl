mock_provider "aws" {
  source = "../../tests/mocks/aws"
}
mock_provider "hcloud" {
  source = "../../tests/mocks/hcloud"
}
mock_provider "digitalocean" {
  source = "../../tests/mocks/digitalocean"
}
mock_provider "cloudflare" {}

variables {
  edge_url = "https://meet.example.com"
  zone_id  = "0123456789abcdef0123456789abcdef"
  domain   = "sfu.example.com"
  release = {
    version = "1.4.0"
    url     = "https://example.com/v{version}/sfu-node_{version}-1_{arch}.deb"
    sha256 = {
      amd64 = "1111111111111111111111111111111111111111111111111111111111111111"
      arm64 = "2222222222222222222222222222222222222222222222222222222222222222"
    }
  }
}

run "six_nodes_with_names" {
  command = apply

  assert {
    condition     = length(output.nodes) == 6 && output.nodes["nrt-1"].region == "ap-northeast-1"
    error_message = "all six, each where it was asked for"
  }
  assert {
    condition     = output.names["gru-1"] == "gru-1.sfu.example.com"
    error_message = "each with its name"
  }
  assert {
    condition     = length(split(" ", output.addresses)) == 12
    error_message = "both addresses of each are admitted"
  }
}
