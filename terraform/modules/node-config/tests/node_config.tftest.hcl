variables {
  name     = "fra-1"
  edge_url = "https://meet.example.com"
  region   = "eu-central-1"
  place    = { latitude = 50.1, longitude = 8.7 }
  release = {
    version = "1.4.0"
    url     = "https://example.com/v{version}/sfu-node_{version}-1_{arch}.deb"
    sha256 = {
      amd64 = "1111111111111111111111111111111111111111111111111111111111111111"
      arm64 = "2222222222222222222222222222222222222222222222222222222222222222"
    }
  }
}

run "a_node_is_told_what_it_needs" {
  command = plan

  assert {
    condition     = startswith(output.user_data, "#cloud-config\n")
    error_message = "cloud-init tells user data by its first line"
  }
  assert {
    condition     = yamldecode(output.user_data).write_files[0].content == output.env_file
    error_message = "the unit reads what cloud-init writes"
  }
  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_EDGE_URL=https://meet.example.com\n")
    error_message = "the edge's address is missing"
  }
  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_REGION=eu-central-1@50.1,8.7\n")
    error_message = "the region is missing"
  }
  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_HTTP_ADDR=127.0.0.1:7980\n")
    error_message = "health and metrics stay on loopback unless asked for"
  }
  assert {
    condition     = !strcontains(output.env_file, "MERIDIAN_PUBLIC_ADDRESS")
    error_message = "without addresses the node asks the edge"
  }
  assert {
    condition     = output.media_ports == { first = 7900, last = 7901 }
    error_message = "one port a shard"
  }
}

run "the_download_is_pinned_and_checked" {
  command = plan
  variables {
    arch = "arm64"
  }

  assert {
    condition = yamldecode(output.user_data).runcmd[0] == [
      "/usr/local/sbin/meridian-install",
      "https://example.com/v1.4.0/sfu-node_1.4.0-1_arm64.deb",
      "2222222222222222222222222222222222222222222222222222222222222222",
    ]
    error_message = "the package of this version and architecture, with its own checksum"
  }
  assert {
    condition     = strcontains(yamldecode(output.user_data).write_files[2].content, "sha256sum --check --strict")
    error_message = "what is downloaded is checked before it is installed"
  }
}

run "systemd_waits_for_the_drain" {
  command = plan
  variables {
    drain_seconds = 600
  }

  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_DRAIN_SECS=600\n") && strcontains(output.unit_drop_in, "TimeoutStopSec=630\n")
    error_message = "systemd must give the node longer than the node gives its calls"
  }
}

run "nobody_logs_in_unless_asked_for" {
  command = plan

  assert {
    condition     = !can(yamldecode(output.user_data).ssh_authorized_keys) && !yamldecode(output.user_data).ssh_pwauth
    error_message = "no key, no password"
  }
}

run "what_is_asked_for_is_done" {
  command = plan
  variables {
    ssh_public_keys  = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0000000000000000000000000000000000000000000 ops"]
    metrics_public   = true
    public_addresses = ["192.0.2.7", "2001:db8::7"]
    shards           = 8
    settings         = { MERIDIAN_MAX_SESSIONS = "500" }
  }

  assert {
    condition     = length(yamldecode(output.user_data).ssh_authorized_keys) == 1
    error_message = "the key is missing"
  }
  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_HTTP_ADDR=[::]:7980\n")
    error_message = "metrics on all addresses"
  }
  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_PUBLIC_ADDRESS=192.0.2.7,2001:db8::7\n")
    error_message = "the addresses are missing"
  }
  assert {
    condition     = strcontains(output.env_file, "MERIDIAN_MAX_SESSIONS=500\n") && output.media_ports.last == 7907
    error_message = "the settings are missing"
  }
}

run "bad_values_are_refused" {
  command = plan
  variables {
    name             = "Fra_1"
    edge_url         = "http://meet.example.com"
    region           = "x y"
    place            = { latitude = 91, longitude = 0 }
    shards           = 0
    drain_seconds    = -1
    public_addresses = ["fra-1.example.com"]
    ssh_public_keys  = ["ssh-rsa AAAA old"]
  }
  expect_failures = [
    var.name, var.edge_url, var.region, var.place, var.shards, var.drain_seconds, var.public_addresses, var.ssh_public_keys,
  ]
}

run "a_release_is_one_version_from_a_safe_place" {
  command = plan
  variables {
    release = { version = "latest", url = "http://example.com/{version}.deb", sha256 = { amd64 = "abc" } }
  }
  expect_failures = [var.release]
}

run "an_architecture_without_a_checksum_is_refused" {
  command = plan
  variables {
    arch = "arm64"
    release = {
      version = "1.4.0"
      url     = "https://example.com/{version}/{arch}.deb"
      sha256  = { amd64 = "1111111111111111111111111111111111111111111111111111111111111111" }
    }
  }
  expect_failures = [var.release]
}

run "no_secret_gets_into_user_data" {
  command = plan
  variables {
    settings = { MERIDIAN_ENROL_TOKEN = "eyJ" }
  }
  expect_failures = [var.settings]
}

run "a_setting_cannot_smuggle_a_line" {
  command = plan
  variables {
    settings = { MERIDIAN_LOG = "info\nLD_PRELOAD=/tmp/x" }
  }
  expect_failures = [var.settings]
}
