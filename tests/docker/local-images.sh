#!/usr/bin/env bash
# Builds stand-ins for the images of docker-compose.yml from Debian's packages, for where no image registry is reachable,
# and writes their names into .env beside that file, where Docker Compose looks for them. As root, on Debian 12, with
# debootstrap and a Docker engine:
#
#     tests/docker/local-images.sh [SERVICE...]      # all of them, if none is named
#     tests/docker/local-images.sh --remove          # the images and .env again
#
# A stand-in is built only where Debian has the same product in the version line that the service asks for, and its tag
# is the version that is really in it. What Debian doesn't have keeps the name of its public image, and so can't be had.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")"

REPOSITORY=gotasks-local
BASE=$REPOSITORY/debian:12
SUITE=bookworm
MIRROR=${GOTASKS_DEBIAN_MIRROR:-http://deb.debian.org/debian}
SECURITY=${GOTASKS_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}

# service, version line, name of the image, the package whose version counts, other packages
table() {
    cat <<'END'
redis 7.0 redis redis-server
postgresql 15 postgres postgresql-15
mariadb 10.11 mariadb mariadb-server
rabbitmq-3.10 3.10 rabbitmq rabbitmq-server
nats 2.9 nats nats-server
END
}

say() { echo "local-images: $*" >&2; }

remove() {
    rm -f .env
    docker image ls --format '{{.Repository}}:{{.Tag}}' "$REPOSITORY/*" | while read -r image; do
        docker image rm "$image" >/dev/null
    done
}

base() {
    docker image inspect "$BASE" >/dev/null 2>&1 && return
    local root
    root=$(mktemp -d)
    say "debootstrap of Debian $SUITE"
    debootstrap --variant=minbase "$SUITE" "$root" "$MIRROR" >"$root.log" 2>&1 || {
        tail "$root.log" >&2
        rm -rf "$root" "$root.log"
        return 1
    }
    echo "deb $SECURITY $SUITE-security main" >>"$root/etc/apt/sources.list"
    tar -C "$root" --one-file-system -c . | docker import - "$BASE" >/dev/null
    rm -rf "$root" "$root.log"
}

# Install a package on the base and keep the result as an image; print its name. No container is left.
build() {
    local service=$1 line=$2 name=$3 package=$4 container version image
    container=$(docker create --network host "$BASE" sh -ec "
        apt-get update -q
        apt-cache policy $package | sed -n 's/^  Candidate: //p' >/version
        DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $package
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb")
    docker cp local-entrypoint.sh "$container:/local-entrypoint.sh"
    docker cp /etc/resolv.conf "$container:/etc/resolv.conf"
    if ! docker start --attach "$container" >"/tmp/$container.log" 2>&1; then
        tail "/tmp/$container.log" >&2
        docker rm "$container" >/dev/null
        return 1
    fi
    rm -f "/tmp/$container.log"
    # 5:7.0.15-1~deb12u7 → 7.0.15
    version=$(docker cp "$container:/version" - | tar -xO | sed -E 's/^[0-9]+://; s/[-+].*//')
    case "$version." in
        "$line".*) ;;
        *)
            say "$service wants $name $line, Debian has $version: not built"
            docker rm "$container" >/dev/null
            return 0
            ;;
    esac
    image=$REPOSITORY/$name:$version
    docker commit --change 'ENTRYPOINT ["/local-entrypoint.sh"]' --change 'CMD ["sh"]' "$container" "$image" >/dev/null
    docker rm "$container" >/dev/null
    echo "$image"
}

if [ "${1:-}" = --remove ]; then
    remove
    exit
fi
for each in "$@"; do
    table | cut -d' ' -f1 | grep -qxF "$each" || { say "there is no stand-in for $each"; exit 2; }
done
command -v debootstrap >/dev/null || { say "debootstrap isn't installed: apt-get install debootstrap"; exit 2; }
docker info >/dev/null 2>&1 || { say "no Docker engine answers"; exit 2; }

base
touch .env
while read -r service line name package; do
    [ $# -eq 0 ] || [[ " $* " == *" $service "* ]] || continue
    image=$(build "$service" "$line" "$name" "$package" </dev/null)
    [ -n "$image" ] || continue
    variable=GOTASKS_TEST_$(tr 'a-z.-' 'A-Z__' <<<"$service")_IMAGE
    sed -i "/^$variable=/d" .env
    echo "$variable=$image" >>.env
    say "$service: $image"
done < <(table)
