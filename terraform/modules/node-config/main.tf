# What a node's machine is told at its first boot. Pure: no provider, nothing is created, and no secret is in it.

locals {
  url = replace(replace(var.release.url, "{version}", var.release.version), "{arch}", var.arch)

  environment = merge(
    {
      MERIDIAN_EDGE_URL   = var.edge_url
      MERIDIAN_REGION     = "${var.region}@${var.place.latitude},${var.place.longitude}"
      MERIDIAN_UDP_PORT   = tostring(var.udp_port)
      MERIDIAN_SHARDS     = tostring(var.shards)
      MERIDIAN_HTTP_ADDR  = var.metrics_public ? "[::]:7980" : "127.0.0.1:7980"
      MERIDIAN_DRAIN_SECS = tostring(var.drain_seconds)
      MERIDIAN_LOG_FORMAT = "json"
    },
    length(var.public_addresses) == 0 ? {} : { MERIDIAN_PUBLIC_ADDRESS = join(",", var.public_addresses) },
    var.settings,
  )
  env_file = join("", [for name, value in local.environment : "${name}=${value}\n"])

  # Over the package's unit: systemd must not kill what still drains.
  drop_in = templatefile("${path.module}/files/10-fleet.conf.tftpl", { stop_seconds = var.drain_seconds + 30 })

  cloud_config = merge(
    {
      hostname       = var.name
      ssh_pwauth     = false
      disable_root   = true
      package_update = true
      packages       = ["ca-certificates", "curl", "unattended-upgrades"]
      write_files = [
        { path = "/etc/meridian/sfu-node.env", permissions = "0640", content = local.env_file },
        { path = "/etc/systemd/system/sfu-node.service.d/10-fleet.conf", permissions = "0644", content = local.drop_in },
        { path = "/usr/local/sbin/meridian-install", permissions = "0755", content = file("${path.module}/files/meridian-install") },
      ]
      runcmd = [["/usr/local/sbin/meridian-install", local.url, var.release.sha256[var.arch]]]
    },
    # cloud-init takes no empty list for keys.
    length(var.ssh_public_keys) == 0 ? {} : { ssh_authorized_keys = var.ssh_public_keys },
  )
}
