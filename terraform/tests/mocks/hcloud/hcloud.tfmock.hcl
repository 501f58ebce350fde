mock_resource "hcloud_firewall" {
  defaults = { id = "1" }
}
mock_resource "hcloud_server" {
  defaults = { ipv4_address = "192.0.2.2", ipv6_address = "2001:db8:2::1" }
}
