# Names for people and monitors; clients get addresses from the edge. Never proxied: media is UDP.

variable "zone_id" {
  description = "Cloudflare's id of the zone."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{32}$", var.zone_id))
    error_message = "zone_id must be 32 hexadecimal digits."
  }
}

variable "domain" {
  description = "A node's name is NODE.domain; the domain must lie in the zone."
  type        = string
  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a lower-case domain name, such as sfu.example.com."
  }
}

variable "nodes" {
  description = "Each node's addresses, as the cloud modules give them."
  type        = map(object({ ipv4 = string, ipv6 = string }))
}

resource "cloudflare_dns_record" "ipv4" {
  for_each = var.nodes
  zone_id  = var.zone_id
  name     = "${each.key}.${var.domain}"
  type     = "A"
  content  = each.value.ipv4
  ttl      = 60
  proxied  = false
  comment  = "Meridian node"
}

resource "cloudflare_dns_record" "ipv6" {
  for_each = var.nodes
  zone_id  = var.zone_id
  name     = "${each.key}.${var.domain}"
  type     = "AAAA"
  content  = each.value.ipv6
  ttl      = 60
  proxied  = false
  comment  = "Meridian node"
}

output "names" {
  description = "Each node's name in the DNS."
  value       = { for node, record in cloudflare_dns_record.ipv4 : node => record.name }
}
