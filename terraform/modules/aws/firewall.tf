# A security group for each node, with a rule for each port range and network.

locals {
  ingress = merge([
    for name, rules in local.inbound : {
      for pair in flatten([for rule in rules : [for cidr in rule.from : merge(rule, { cidr = cidr })]]) :
      "${name} ${pair.rule} ${pair.cidr}" => merge(pair, { node = name })
    }
  ]...)

  egress = merge([
    for name in keys(var.nodes) : {
      for pair in setproduct(local.outbound, local.everyone) :
      "${name} ${pair[0].rule} ${pair[1]}" => merge(pair[0], { cidr = pair[1], node = name })
    }
  ]...)
}

resource "aws_security_group" "node" {
  #checkov:skip=CKV2_AWS_5: attached to the instance of the same name
  for_each    = var.nodes
  region      = each.value.region
  name        = "${var.prefix}-${each.key}"
  description = "Media to ${each.key}"
  vpc_id      = aws_vpc.region[each.value.region].id
  tags        = { Name = "${var.prefix}-${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "node" {
  for_each          = local.ingress
  region            = var.nodes[each.value.node].region
  security_group_id = aws_security_group.node[each.value.node].id
  description       = each.value.rule
  ip_protocol       = each.value.protocol
  from_port         = each.value.first
  to_port           = each.value.last
  cidr_ipv4         = strcontains(each.value.cidr, ":") ? null : each.value.cidr
  cidr_ipv6         = strcontains(each.value.cidr, ":") ? each.value.cidr : null
}

resource "aws_vpc_security_group_egress_rule" "node" {
  for_each          = local.egress
  region            = var.nodes[each.value.node].region
  security_group_id = aws_security_group.node[each.value.node].id
  description       = each.value.rule
  ip_protocol       = each.value.protocol
  from_port         = each.value.first
  to_port           = each.value.last
  cidr_ipv4         = strcontains(each.value.cidr, ":") ? null : each.value.cidr
  cidr_ipv6         = strcontains(each.value.cidr, ":") ? each.value.cidr : null
}
