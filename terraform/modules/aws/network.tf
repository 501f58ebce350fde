# A small network for each region that has nodes: public addresses only, no NAT, no load balancer.

locals {
  regions = toset([for node in var.nodes : node.region])
}

data "aws_availability_zones" "open" {
  #checkov:skip=CKV_AWS_394: read once, when the subnet is made; a zone that is added later moves nothing
  for_each = local.regions
  region   = each.key
  state    = "available"
}

resource "aws_vpc" "region" {
  #checkov:skip=CKV2_AWS_11: flow logs of media would cost more than the traffic; the node counts and logs refusals
  #checkov:skip=CKV2_AWS_12: nothing is in the default security group; each node has a group of its own
  for_each                         = local.regions
  region                           = each.key
  cidr_block                       = "10.79.0.0/20"
  assign_generated_ipv6_cidr_block = true
  enable_dns_support               = true
  tags                             = { Name = "${var.prefix}-${each.key}" }
}

resource "aws_internet_gateway" "region" {
  for_each = local.regions
  region   = each.key
  vpc_id   = aws_vpc.region[each.key].id
  tags     = { Name = "${var.prefix}-${each.key}" }
}

resource "aws_subnet" "region" {
  for_each        = local.regions
  region          = each.key
  vpc_id          = aws_vpc.region[each.key].id
  cidr_block      = aws_vpc.region[each.key].cidr_block
  ipv6_cidr_block = cidrsubnet(aws_vpc.region[each.key].ipv6_cidr_block, 8, 0)
  # Ids, unlike names, mean the same zone in every account: the first one is none of the old, full ones.
  availability_zone_id            = sort(data.aws_availability_zones.open[each.key].zone_ids)[0]
  map_public_ip_on_launch         = false
  assign_ipv6_address_on_creation = false
  tags                            = { Name = "${var.prefix}-${each.key}" }

  lifecycle {
    ignore_changes = [availability_zone_id]
  }
}

resource "aws_route_table" "region" {
  for_each = local.regions
  region   = each.key
  vpc_id   = aws_vpc.region[each.key].id
  tags     = { Name = "${var.prefix}-${each.key}" }
}

resource "aws_route" "ipv4" {
  for_each               = local.regions
  region                 = each.key
  route_table_id         = aws_route_table.region[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.region[each.key].id
}

resource "aws_route" "ipv6" {
  for_each                    = local.regions
  region                      = each.key
  route_table_id              = aws_route_table.region[each.key].id
  destination_ipv6_cidr_block = "::/0"
  gateway_id                  = aws_internet_gateway.region[each.key].id
}

resource "aws_route_table_association" "region" {
  for_each       = local.regions
  region         = each.key
  route_table_id = aws_route_table.region[each.key].id
  subnet_id      = aws_subnet.region[each.key].id
}
