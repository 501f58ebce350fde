# The same file in every cloud module: one of them can be put in another's place.

variable "nodes" {
  description = "The nodes on this cloud, by name. place: where the region is, if this module does not know it. release: which of the releases."
  type = map(object({
    region  = string
    size    = string
    arch    = optional(string, "amd64")
    shards  = optional(number, 2)
    release = optional(string, "stable")
    place   = optional(object({ latitude = number, longitude = number }))
  }))
  validation {
    condition     = alltrue([for name in keys(var.nodes) : can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", name))])
    error_message = "Names of nodes must be 1 to 40 of a-z, 0-9 and -, with neither end a -."
  }
  validation {
    condition     = alltrue([for node in var.nodes : contains(keys(var.common.releases), node.release)])
    error_message = "Each node's release must be one of common.releases."
  }
  validation {
    condition     = alltrue([for node in var.nodes : node.place != null || contains(keys(local.places), node.region)])
    error_message = "This module does not know where that region is: give the node a place."
  }
  validation {
    condition     = alltrue([for node in var.nodes : node.shards >= 1 && node.shards <= 64])
    error_message = "shards must be 1 to 64."
  }
}

variable "common" {
  description = "What all nodes share; see modules/node-config."
  type = object({
    edge_url        = string
    releases        = map(object({ version = string, url = string, sha256 = map(string) }))
    drain_seconds   = optional(number, 120)
    udp_port        = optional(number, 7900)
    ssh_public_keys = optional(list(string), [])
    settings        = optional(map(string), {})
  })
}

variable "prefix" {
  description = "Starts the names of what is made."
  type        = string
  default     = "meridian"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.prefix))
    error_message = "prefix must be 1 to 20 of a-z, 0-9 and -, and start with a letter."
  }
}

variable "ssh_from" {
  description = "Networks (CIDR) that reach SSH. Empty: the port is closed."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for cidr in var.ssh_from : can(cidrhost(cidr, 0))])
    error_message = "ssh_from must be networks such as 192.0.2.0/24."
  }
  validation {
    condition     = !anytrue([for cidr in var.ssh_from : endswith(cidr, "/0")])
    error_message = "ssh_from must not be the whole internet."
  }
}

variable "metrics_from" {
  description = "Networks (CIDR) that reach health and metrics, plain HTTP on 7980. Empty: loopback only."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for cidr in var.metrics_from : can(cidrhost(cidr, 0))])
    error_message = "metrics_from must be networks such as 192.0.2.0/24."
  }
  validation {
    condition     = !anytrue([for cidr in var.metrics_from : endswith(cidr, "/0")])
    error_message = "metrics_from must not be the whole internet."
  }
}
