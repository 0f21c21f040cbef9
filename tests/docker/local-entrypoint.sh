#!/bin/sh
# The entry point of the images that local-images.sh builds: takes the same commands and does the same first steps as the
# public images, as far as docker-compose.yml needs them. What a server keeps stays in its container over a restart.
set -eu

as() {  # user command...: as this user, in this process
    user=$1
    shift
    HOME=$(getent passwd "$user" | cut -d: -f6)
    export HOME
    exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
}

case "${1:-}" in
    redis-server)
        cd /var/lib/redis
        as redis "$@"
        ;;
    postgres)
        shift
        bin=$(echo /usr/lib/postgresql/*/bin)
        data=/var/lib/postgresql/data
        if [ ! -s "$data/PG_VERSION" ]; then
            install -d -o postgres -g postgres -m 700 "$data"
            setpriv --reuid=postgres --regid=postgres --init-groups -- \
                "$bin/initdb" -D "$data" --auth=trust --encoding=UTF8 --locale=C.UTF-8
            echo "host all all all trust" >>"$data/pg_hba.conf"
        fi
        install -d -o postgres -g postgres /var/run/postgresql
        as postgres "$bin/postgres" -D "$data" -c listen_addresses='*' "$@"
        ;;
    mariadbd)
        shift
        data=/var/lib/mysql
        install -d -o mysql -g mysql /run/mysqld
        if [ ! -d "$data/test" ]; then
            # Here as there: root may log in from anywhere, without a password where MARIADB_ALLOW_EMPTY_ROOT_PASSWORD says so.
            rm -rf "$data"
            install -d -o mysql -g mysql "$data"
            mariadb-install-db --user=mysql --datadir="$data" --auth-root-authentication-method=normal --skip-test-db
            setpriv --reuid=mysql --regid=mysql --init-groups -- mariadbd --bootstrap --datadir="$data" <<'SQL'
USE mysql;
FLUSH PRIVILEGES;
CREATE DATABASE test;
CREATE USER root@'%';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
        fi
        as mysql mariadbd --datadir="$data" --bind-address=0.0.0.0 "$@"
        ;;
    rabbitmq-server)
        # As in the public image: guest may log in from outside the container, and the log goes to the standard output.
        printf 'loopback_users.guest = false\nlog.console = true\n' >/etc/rabbitmq/rabbitmq.conf
        as rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server  # the one on PATH hides what it says
        ;;
    -js)
        install -d -o nats -g nats /var/lib/nats
        as nats nats-server -sd /var/lib/nats "$@"
        ;;
    *)
        exec "$@"
        ;;
esac
