variable "name" {
  description = "The node's name: its host name, and its name in the DNS."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", var.name))
    error_message = "name must be 1 to 40 of a-z, 0-9 and -, with neither end a -."
  }
}

variable "edge_url" {
  description = "The edge: the Worker's address."
  type        = string
  validation {
    condition     = can(regex("^(https://[a-z0-9.-]+(:[0-9]+)?|http://(127\\.0\\.0\\.1|localhost)(:[0-9]+)?)$", var.edge_url))
    error_message = "edge_url must be https://HOST without a path (http:// for this machine alone)."
  }
}

variable "region" {
  description = "Region that the edge places participants by."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,39}$", var.region))
    error_message = "region must be 2 to 40 of a-z, 0-9 and -."
  }
}

variable "place" {
  description = "Where the region is, degrees north and east."
  type        = object({ latitude = number, longitude = number })
  validation {
    condition     = abs(var.place.latitude) <= 90 && abs(var.place.longitude) <= 180
    error_message = "latitude must be within 90 degrees, longitude within 180."
  }
}

variable "release" {
  description = "The package to install. {version} and {arch} in the address stand for the release's version and the machine's architecture."
  type        = object({ version = string, url = string, sha256 = map(string) })
  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+(-[0-9a-z.]+)?$", var.release.version))
    error_message = "release.version must be one version, such as 1.4.0: not a range, not latest."
  }
  validation {
    condition     = can(regex("^(https://|http://(127\\.0\\.0\\.1|localhost)[:/])[^ '\"\\\\]+\\.deb$", var.release.url)) && strcontains(var.release.url, "{version}")
    error_message = "release.url must be the https:// address of a .deb with {version} in it."
  }
  validation {
    condition     = alltrue([for sum in values(var.release.sha256) : can(regex("^[0-9a-f]{64}$", sum))])
    error_message = "release.sha256 must hold 64 lower-case hexadecimal digits for each architecture."
  }
  validation {
    condition     = contains(keys(var.release.sha256), var.arch)
    error_message = "release.sha256 has no entry for this node's architecture."
  }
}

variable "arch" {
  description = "Architecture of the machine, as Debian calls it."
  type        = string
  default     = "amd64"
  validation {
    condition     = contains(["amd64", "arm64"], var.arch)
    error_message = "arch must be amd64 or arm64."
  }
}

variable "shards" {
  description = "Media threads, each with a UDP port of its own: one for each core."
  type        = number
  default     = 2
  validation {
    condition     = var.shards >= 1 && var.shards <= 64 && floor(var.shards) == var.shards
    error_message = "shards must be 1 to 64."
  }
}

variable "udp_port" {
  description = "UDP port of the first shard; each further shard takes the next one."
  type        = number
  default     = 7900
  validation {
    condition     = var.udp_port >= 1024 && var.udp_port + var.shards - 1 <= 65535
    error_message = "udp_port must be 1024 or higher and leave a port for each shard."
  }
}

variable "public_addresses" {
  description = "Addresses clients reach the node at. Empty: the node asks the edge which ones it is seen at."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for a in var.public_addresses : can(cidrhost("${a}/32", 0)) || can(cidrhost("${a}/128", 0))])
    error_message = "public_addresses must be IP addresses."
  }
}

variable "metrics_public" {
  description = "Health and metrics listen on all addresses (plain HTTP: for a firewall to open to a monitor), not on loopback alone."
  type        = bool
  default     = false
}

variable "drain_seconds" {
  description = "How long calls may go on when the node is stopped."
  type        = number
  default     = 120
  validation {
    condition     = var.drain_seconds >= 0 && var.drain_seconds <= 86400
    error_message = "drain_seconds must be 0 to 86400 (a day)."
  }
}

variable "ssh_public_keys" {
  description = "Keys of the machine's admin user. Empty: nobody logs in."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for k in var.ssh_public_keys : can(regex("^(ssh-ed25519|sk-ssh-ed25519@openssh\\.com|ecdsa-sha2-[a-z0-9-]+) [A-Za-z0-9+/=]+( [^\\n]*)?$", k))])
    error_message = "ssh_public_keys must be Ed25519 or ECDSA public keys, a line each."
  }
}

variable "settings" {
  description = "Further settings of sfu-node, by the name of their environment variable."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^MERIDIAN_[A-Z_]+$", name))])
    error_message = "settings must be named MERIDIAN_…: see sfu-node --help."
  }
  validation {
    condition     = !anytrue([for name in keys(var.settings) : can(regex("TOKEN|SECRET|PASSWORD", name))])
    error_message = "settings must hold no secret: user data and state can be read. The node enrols without one (see the README)."
  }
  validation {
    condition     = alltrue([for value in values(var.settings) : can(regex("^[A-Za-z0-9_.,:=/@\\[\\]+-]*$", value))])
    error_message = "settings must hold letters, digits and _ . , : = / @ [ ] + - only."
  }
}
