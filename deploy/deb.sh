#!/usr/bin/env bash
# deb.sh [FOLDER] [MESON-OPTION...]: builds galley_VERSION_ARCH.deb into FOLDER (here, if none is named) for the Debian this
# runs on. The package installs the service and starts nothing: systemctl enable --now galley does.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

out=$(realpath "${1:-.}")
shift || true
maintainer=${DEBFULLNAME:-Galley developers}" <${DEBEMAIL:-galley@users.noreply.github.com}>"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

ensure_packages $BUILD_PACKAGES dpkg-dev
build build/deb --buildtype=release --prefix=/usr --sysconfdir=/etc -Dcuda=disabled -Dtests=disabled "$@"

version=$(sed -n "s/^  version: '\(.*\)',/\1/p" meson.build)
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
meson install -C build/deb --no-rebuild --quiet --strip --tags runtime --destdir "$root"

# Where Debian has what meson puts elsewhere.
mkdir -p "$root/lib" "$root/usr/share/zsh/vendor-completions"
mv "$root/usr/lib/systemd" "$root/lib/"
rmdir "$root/usr/lib"
mv "$root/usr/share/zsh/site-functions/_galley" "$root/usr/share/zsh/vendor-completions/"
rmdir "$root/usr/share/zsh/site-functions"
doc=$root/usr/share/doc/galley
rm "$doc/LICENSE"
cat >"$doc/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: galley

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) the Galley authors
License: Apache-2.0
 On Debian systems the full text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
END
printf 'galley (%s) bookworm; urgency=medium\n\n  * Built from the sources of version %s.\n\n -- %s  %s\n' "$version" "$version" \
    "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" >"$doc/changelog"
gzip -9n "$doc/changelog" "$root/usr/share/man/man1/galley.1"

# What it needs, from what it loads.
mkdir -p "$work/debian" "$root/DEBIAN"
printf 'Source: galley\n\nPackage: galley\nArchitecture: any\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O --warnings=0 root/usr/bin/galley | sed 's/^shlibs:Depends=//')
cat >"$root/DEBIAN/control" <<END
Package: galley
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Depends: $depends
Recommends: ca-certificates
Section: net
Priority: optional
Homepage: https://github.com/galley-llm/galley
Description: LLM inference server where each request chooses its decoding
 Galley serves language models over the OpenAI API, from GGUF files or Hugging
 Face directories. All requests share one continuous batch over a paged KV
 cache, and each may choose its own way of decoding: speculative, copying, a
 draft model, beams, votes and others.
 .
 A small demo model is included. The service is installed and not started.
END
echo /etc/galley/galley.yaml >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
# Nothing is enabled or started; a service that runs goes on with the new version.
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
    [ -z "$2" ] || deb-systemd-invoke try-restart galley.service >/dev/null || true
fi
END
cat >"$root/DEBIAN/prerm" <<'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop galley.service >/dev/null || true
fi
END
cat >"$root/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
END
chmod 755 "$root/DEBIAN/"p*
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -type d -exec chmod 755 {} +
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
deb=$out/galley_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$deb" >/dev/null
say "$deb: $(($(stat -c %s "$deb") / 1000)) kB"
