# A container as a runtime makes one of the DaemonSet's: what a container sees of the machine, and no capability but those
# that are named. It needs no runtime. Arguments: a folder of the test's own, what the container is given, the program.
#
#   container.sh HOST CAPABILITIES PACKAGE COMMAND [ARGUMENT ...]
#
# HOST/mounts has a line "FROM TO ro|rw" for each volume. The root is read-only and so is /proc/sys, as runc has it; what is
# mounted in HOST later appears inside, as with mountPropagation HostToContainer.
set -eu
host=$1 capabilities=$2 package=$3
shift 3
root=$host/root
mount --make-rslave /
mkdir -p "$root"
mount -t tmpfs none "$root"
for name in bin sbin lib lib32 lib64 usr; do
  if [ -L "/$name" ]; then cp -a "/$name" "$root/$name"
  elif [ -d "/$name" ]; then
    mkdir "$root/$name"
    mount --bind "/$name" "$root/$name"
    mount -o remount,bind,ro "$root/$name"
  fi
done
mkdir -p "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/var/lib" "$root$package"
for name in alternatives group ld.so.cache passwd; do
  if [ -e "/etc/$name" ]; then cp -a "/etc/$name" "$root/etc"; fi
done
ln -s /run "$root/var/run"
mount --bind "$package" "$root$package"
mount -o remount,bind,ro "$root$package"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
for name in null zero urandom; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
while read -r from to mode; do
  if [ -d "$from" ]; then mkdir -p "$root$to"
  else
    mkdir -p "$(dirname "$root$to")"
    touch "$root$to"
  fi
  mount --rbind "$from" "$root$to"
  if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root$to"; fi
done < "$host/mounts"
mount -o remount,ro "$root"
exec chroot "$root" setpriv --no-new-privs --bounding-set="$capabilities" --inh-caps=-all "$@"
