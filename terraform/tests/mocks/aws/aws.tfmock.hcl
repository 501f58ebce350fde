mock_resource "aws_vpc" {
  defaults = { cidr_block = "10.79.0.0/20", ipv6_cidr_block = "2001:db8:1::/56" }
}
mock_resource "aws_instance" {
  defaults = { public_ip = "192.0.2.1", ipv6_addresses = ["2001:db8:1::1"] }
}
mock_data "aws_availability_zones" {
  defaults = { zone_ids = ["use1-az3", "use1-az1"] }
}
mock_data "aws_ami" {
  defaults = { id = "ami-0123456789abcdef0" }
}
