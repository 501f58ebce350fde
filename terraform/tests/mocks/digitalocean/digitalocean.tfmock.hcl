mock_resource "digitalocean_droplet" {
  defaults = { ipv4_address = "192.0.2.3", ipv6_address = "2001:db8:3::1" }
}
