#!/bin/sh
# rootfs.sh INSTALLED ROOT: makes ROOT a root file system for what was installed under INSTALLED: with the libraries that
# its binary loads and their licences, certificates, and a user who is not root.
set -eu
installed=$1 root=$2

mkdir -p "$root/etc/ssl/certs" "$root/usr" "$root/tmp" "$root/var/lib/galley" "$root/var/cache/galley" "$root/usr/share/doc"
for name in bin lib lib64 sbin; do # as Debian has it
    mkdir -p "$root/usr/$name"
    ln -s "usr/$name" "$root/$name"
done
mkdir -p "$root/usr/bin" "$root/usr/share"
cp "$installed/usr/bin/galley" "$root/usr/bin/"
cp -r "$installed/usr/share/galley" "$root/usr/share/"
mkdir -p "$root/usr/share/doc/galley"
cp "$installed/usr/share/doc/galley/LICENSE" "$root/usr/share/doc/galley/"

# "libx.so.1 => /lib/x86_64-linux-gnu/libx.so.1 (0x...)", and the loader "/lib64/ld-linux-x86-64.so.2 (0x...)"
ldd "$installed/usr/bin/galley" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
    package=$(dpkg-query -S "$(realpath "$library")" 2>/dev/null || dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "/usr$library")
    package=${package%%:*}
    mkdir -p "$root/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
done

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp /etc/debian_version /etc/os-release "$root/etc/" # by these NVIDIA's toolkit knows where libraries go
printf 'root:x:0:0::/:/nologin\ngalley:x:65532:65532::/var/lib/galley:/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\ngalley:x:65532:\n' >"$root/etc/group"
chmod 1777 "$root/tmp"
chown 65532:65532 "$root/var/lib/galley" "$root/var/cache/galley"
