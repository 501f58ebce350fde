# Two nodes in one region of one cloud, and nothing else. HCLOUD_TOKEN: an API token of your Hetzner Cloud project.

terraform {
  required_version = ">= 1.9"
  required_providers {
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

module "nodes" {
  source = "../../modules/hcloud"
  nodes = {
    fsn-1 = { region = "fsn1", size = "ccx13" }
    fsn-2 = { region = "fsn1", size = "ccx13" }
  }
  common = {
    edge_url = var.edge_url
    releases = { stable = var.release }
  }
}

output "nodes" {
  description = "Each node's addresses."
  value       = module.nodes.nodes
}

output "addresses" {
  description = "For cargo xtask fleet admit."
  value       = join(" ", flatten([for node in module.nodes.nodes : [node.ipv4, node.ipv6]]))
}
