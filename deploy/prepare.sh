#!/bin/sh
# Makes what deploy/compose.yaml needs and no repository may hold: passwords in .env, and in secrets/ an authority, a
# certificate that it has signed, and an API key, which is shown once. Nothing that is there is touched.
#
#   deploy/prepare.sh NAME [TENANT]
#
# NAME is what agents call this machine (a DNS name, or an IPv4 address); TENANT whose threads the key opens (default: main).
set -eu
umask 077

if [ "$#" -lt 1 ] || [ "$#" -gt 2 ]; then
    sed -n 's/^# \{0,1\}//; 2,8p' "$0" >&2
    exit 2
fi
name=$1
tenant=${2:-main}
case $name in
    '' | *[!A-Za-z0-9.-]*)
        echo "prepare: $name is neither a DNS name nor an IPv4 address" >&2
        exit 2
        ;;
    *[!0-9.]*) alternative=DNS:$name ;;
    *) alternative=IP:$name ;;
esac
case $tenant in
    '' | *[!A-Za-z0-9._-]*)
        echo "prepare: a tenant's name has letters, digits, dots, - and _ here" >&2
        exit 2
        ;;
esac
cd "$(dirname "$0")"

random() { openssl rand -hex 24; }
curve() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -e .env ]; then
    printf 'POSTGRES_PASSWORD=%s\nGRAFANA_PASSWORD=%s\n' "$(random)" "$(random)" >.env
    echo "made .env: the passwords of PostgreSQL and Grafana" >&2
fi

# Other users of this machine can't enter the folder. In the container, where each file appears by itself, the server is
# another user and must be able to read it.
mkdir -p secrets
if [ ! -e secrets/tls.key ]; then
    curve secrets/ca.key
    openssl req -x509 -new -sha256 -key secrets/ca.key -days 3650 -out secrets/ca.crt -subj "/CN=checkpointd authority" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
    curve secrets/tls.key
    openssl req -new -sha256 -key secrets/tls.key -subj "/CN=$name" -out secrets/tls.csr
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=%s,DNS:localhost,IP:127.0.0.1\n' \
        "$alternative" >secrets/tls.ext
    openssl x509 -req -sha256 -in secrets/tls.csr -CA secrets/ca.crt -CAkey secrets/ca.key -CAcreateserial -days 825 \
        -extfile secrets/tls.ext -out secrets/tls.crt 2>/dev/null
    rm -f secrets/tls.csr secrets/tls.ext secrets/ca.srl
    chmod 644 secrets/tls.key secrets/tls.crt secrets/ca.crt
    echo "made secrets/tls.crt and tls.key for $name, signed by secrets/ca.crt, which agents are given" >&2
fi

if [ ! -e secrets/keys.toml ]; then
    key=ckd_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n')
    digest=$(printf %s "$key" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
    printf '[[key]]\ntenant = "%s"\nscopes = ["read", "write", "delete"]\nname = "%s"\nsha256 = "%s"\n' \
        "$tenant" "$tenant" "$digest" >secrets/keys.toml
    chmod 644 secrets/keys.toml
    echo "made secrets/keys.toml. The key, which is stored nowhere: $key" >&2
fi
