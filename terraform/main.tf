# One fleet map, each node to the module of its cloud. All cloud modules have the same inputs and outputs.

locals {
  nodes = { for cloud in ["aws", "hcloud", "digitalocean"] : cloud => { for name, node in var.fleet : name => node if node.cloud == cloud } }

  common = {
    edge_url        = var.edge_url
    releases        = var.releases
    drain_seconds   = var.drain_seconds
    ssh_public_keys = var.ssh == null ? [] : var.ssh.public_keys
    settings        = var.settings
  }
  ssh_from = var.ssh == null ? [] : var.ssh.from

  running = merge(module.aws.nodes, module.hcloud.nodes, module.digitalocean.nodes)
}

module "aws" {
  source       = "./modules/aws"
  nodes        = local.nodes.aws
  common       = local.common
  prefix       = var.prefix
  ssh_from     = local.ssh_from
  metrics_from = var.metrics_from
}

module "hcloud" {
  source       = "./modules/hcloud"
  nodes        = local.nodes.hcloud
  common       = local.common
  prefix       = var.prefix
  ssh_from     = local.ssh_from
  metrics_from = var.metrics_from
}

module "digitalocean" {
  source       = "./modules/digitalocean"
  nodes        = local.nodes.digitalocean
  common       = local.common
  prefix       = var.prefix
  ssh_from     = local.ssh_from
  metrics_from = var.metrics_from
}

module "dns" {
  source  = "./modules/dns"
  count   = var.dns == null ? 0 : 1
  zone_id = var.dns.zone_id
  domain  = var.dns.domain
  nodes   = local.running
}
