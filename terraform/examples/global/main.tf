# Six nodes on four continents and three clouds, from one map, with names in the DNS.
# AWS credentials and AWS_REGION as for its CLI (each node names its own region); HCLOUD_TOKEN, DIGITALOCEAN_TOKEN, CLOUDFLARE_API_TOKEN (Zone, DNS, Edit).

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    cloudflare = {
      source  = "cloudflare/cloudflare"
      version = "~> 5.0"
    }
    digitalocean = {
      source  = "digitalocean/digitalocean"
      version = "~> 2.71"
    }
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.57"
    }
  }
}

variable "edge_url" {
  description = "The edge: the Worker's address, https://HOST."
  type        = string
}

variable "release" {
  description = "The sfu-node package: its version, its address, its SHA-256 for each architecture."
  type        = object({ version = string, url = string, sha256 = map(string) })
}

variable "zone_id" {
  description = "Cloudflare's id of the zone with the nodes' names."
  type        = string
}

variable "domain" {
  description = "A node's name is NODE.domain."
  type        = string
}

module "fleet" {
  source   = "../.."
  edge_url = var.edge_url
  releases = { stable = var.release }
  dns      = { zone_id = var.zone_id, domain = var.domain }
  fleet = {
    iad-1 = { cloud = "aws", region = "us-east-1", size = "c7g.large", arch = "arm64" }
    gru-1 = { cloud = "aws", region = "sa-east-1", size = "c7g.large", arch = "arm64" }
    nrt-1 = { cloud = "aws", region = "ap-northeast-1", size = "c7g.large", arch = "arm64" }
    fsn-1 = { cloud = "hcloud", region = "fsn1", size = "ccx13" }
    hil-1 = { cloud = "hcloud", region = "hil", size = "ccx13" }
    syd-1 = { cloud = "digitalocean", region = "syd1", size = "c-2" }
  }
}

output "nodes" {
  description = "Each node's addresses and where it is."
  value       = module.fleet.nodes
}

output "names" {
  description = "Each node's name in the DNS."
  value       = module.fleet.names
}

output "addresses" {
  description = "For cargo xtask fleet admit."
  value       = module.fleet.addresses
}
