variable "fleet" {
  description = "Every node, by name: on which cloud, in which of its regions, of which of its sizes. shards: one for each core."
  type = map(object({
    cloud   = string
    region  = string
    size    = string
    arch    = optional(string, "amd64")
    shards  = optional(number, 2)
    release = optional(string, "stable")
    place   = optional(object({ latitude = number, longitude = number }))
  }))
  validation {
    condition     = alltrue([for node in var.fleet : contains(["aws", "hcloud", "digitalocean"], node.cloud)])
    error_message = "cloud must be aws, hcloud or digitalocean."
  }
  validation {
    condition     = alltrue([for name in keys(var.fleet) : can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", name))])
    error_message = "Names of nodes must be 1 to 40 of a-z, 0-9 and -, with neither end a -."
  }
  validation {
    condition     = alltrue([for node in var.fleet : contains(keys(var.releases), node.release)])
    error_message = "Each node's release must be one of var.releases."
  }
}

variable "edge_url" {
  description = "The edge: the Worker's address, https://HOST."
  type        = string
  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]+)?$", var.edge_url))
    error_message = "edge_url must be https://HOST without a path."
  }
}

variable "releases" {
  description = "Versions of sfu-node in use. A node takes the one its release names (stable, if it names none), so an upgrade goes node by node."
  type        = map(object({ version = string, url = string, sha256 = map(string) }))
  validation {
    condition     = alltrue([for release in values(var.releases) : can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+", release.version))])
    error_message = "A release's version must be one version, such as 1.4.0: not a range, not latest."
  }
}

variable "dns" {
  description = "Gives each node the name NODE.domain in this Cloudflare zone; null: no names."
  type        = object({ zone_id = string, domain = string })
  default     = null
}

variable "drain_seconds" {
  description = "How long calls may go on when a node is stopped."
  type        = number
  default     = 120
}

variable "ssh" {
  description = "Opens SSH to these networks (CIDR) for these public keys; null: closed."
  type        = object({ from = list(string), public_keys = list(string) })
  default     = null
  validation {
    condition     = var.ssh == null ? true : length(var.ssh.from) > 0 && length(var.ssh.public_keys) > 0
    error_message = "ssh needs both networks and keys."
  }
}

variable "metrics_from" {
  description = "Networks (CIDR) that reach health and metrics, plain HTTP on 7980; empty: loopback only."
  type        = list(string)
  default     = []
}

variable "settings" {
  description = "Further settings of sfu-node, by the name of their environment variable; never a secret."
  type        = map(string)
  default     = {}
}

variable "prefix" {
  description = "Starts the names of what is made."
  type        = string
  default     = "meridian"
}
