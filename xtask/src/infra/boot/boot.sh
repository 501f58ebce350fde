#!/bin/sh
# Starts a copy of this machine that forgets everything it writes: boot.sh STATE ARGUMENTS. STATE is a directory with
# user-data, meta-data, meridian-boot.target and an empty machine/; the arguments say what runs in it, as systemd-nspawn
# takes them. To be run in a mount namespace of its own.
set -eu
state=$1
shift
mount -t tmpfs -o mode=0755 tmpfs "$state/machine"
mkdir "$state/machine/upper" "$state/machine/work" "$state/machine/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$state/machine/upper,workdir=$state/machine/work" "$state/machine/root"
# Images of containers forbid services to start.
rm -f "$state/machine/root/usr/sbin/policy-rc.d"
exec systemd-nspawn --register=no --keep-unit --machine=meridian-boot --directory="$state/machine/root" \
    --bind-ro="$state/user-data:/var/lib/cloud/seed/nocloud/user-data" \
    --bind-ro="$state/meta-data:/var/lib/cloud/seed/nocloud/meta-data" \
    --bind-ro="$state/meridian-boot.target:/etc/systemd/system/meridian-boot.target" \
    "$@"
