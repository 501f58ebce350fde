locals {
  # One lookup for each region and architecture in use.
  images = { for node in var.nodes : "${node.region} ${node.arch}" => { region = node.region, arch = node.arch }... }
}

data "aws_ami" "debian" {
  for_each    = local.images
  region      = each.value[0].region
  owners      = ["136693071363"] # Debian's account
  most_recent = true
  filter {
    name   = "name"
    values = ["debian-13-${each.value[0].arch}-*"]
  }
}

resource "aws_instance" "node" {
  #checkov:skip=CKV_AWS_88: clients send media straight to the node, so it has a public address
  #checkov:skip=CKV_AWS_126: the node has metrics of its own, by the second
  #checkov:skip=CKV2_AWS_41: the node calls no AWS API, so it has no role
  for_each                    = var.nodes
  region                      = each.value.region
  ami                         = data.aws_ami.debian["${each.value.region} ${each.value.arch}"].id
  instance_type               = each.value.size
  subnet_id                   = aws_subnet.region[each.value.region].id
  vpc_security_group_ids      = [aws_security_group.node[each.key].id]
  associate_public_ip_address = true
  ipv6_address_count          = 1
  user_data                   = module.config[each.key].user_data
  user_data_replace_on_change = true
  ebs_optimized               = true
  # A shutdown from inside is a drain that ended, not the end of the machine.
  instance_initiated_shutdown_behavior = "stop"

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 10
    encrypted   = true
  }

  # Ending an instance shuts it down first: systemd drains the node.
  timeouts {
    delete = "30m"
  }

  lifecycle {
    # The new node is there before the old one drains; a newer image alone replaces nothing.
    create_before_destroy = true
    ignore_changes        = [ami]
  }

  tags = { Name = "${var.prefix}-${each.key}" }

  # Not before it can reach the edge.
  depends_on = [aws_route.ipv4, aws_route.ipv6, aws_route_table_association.region, aws_vpc_security_group_egress_rule.node]
}
