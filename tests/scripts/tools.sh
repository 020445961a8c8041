#!/usr/bin/env bash
# Installs what the tests need beyond Rust, on a machine that may be a brand-new Debian 12.
#
#   tools.sh python     the venv `tools`: duckdb, confluent-kafka, tpchgen-cli, moto_server, ruff, mypy, pytest, shellcheck
#   tools.sh airflow    the venvs `airflow-2.11.2` and `airflow-3.3.2`; or one: `tools.sh airflow 3.3.2`. `make compat` needs those between
#   tools.sh wheels     the venv `wheels`: maturin, build and hatchling, which make the Python packages; apart from `all`
#   tools.sh dagbag     the venv `dagbag`, for the benchmark of that name: Airflow 3.3.2 with dag-factory beside it; apart from `all`
#   tools.sh postgres   the server's binaries, unless the machine has some
#   tools.sh kafka      Apache Kafka with its console tools, by Maven; Java 17, Maven and openssl unless the machine has some
#   tools.sh promtool   Prometheus's promtool, from Debian's package, of which nothing else is installed
#   tools.sh faketime   libfaketime, by which a test lets the clock jump, from Debian's package, of which nothing else is installed
#   tools.sh strace     strace, by which a test kills a process at each of its steps, unless the machine has it
#   tools.sh all        the seven above
#   tools.sh package DIR   package dagwright-airflow as it is in the repository, with its entry points, for a PYTHONPATH
#   tools.sh compose    docker-compose, which reads deploy/compose.yaml without an engine, from Debian's packages
#   tools.sh lint       cargo-deny, unless the machine has it; apart from `all` as it compiles for minutes
#   tools.sh lock       resolves requirements/*.in anew into requirements/*.txt
#
# Everything but PostgreSQL and Java goes into $DAGWRIGHT_TOOLS, by default ${XDG_CACHE_HOME:-$HOME/.cache}/dagwright, and is used
# as $DAGWRIGHT_TOOLS/<venv>/bin/<command>; Kafka by kafka.sh. What is there already at the locked versions is skipped at once. A venv holds
# its lock file as a stamp, written last: an interrupted install is begun again. Each part has a lock of its own, so
# concurrent runs wait for each other.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

python=python3.11 # Both Airflows support it, and it is Debian 12's.
uv_version=0.13.9
cargo_deny_version=0.18.6
promtool_version=2.42.0 # Debian 12's.
faketime_version=0.9.10 # Debian 12's.
compose_version=1.29.2  # Debian 12's.
java_version_min=17     # What Kafka 4 brokers need, and Debian 12's.

say() { printf 'tools: %s\n' "$*" >&2; }

# Runs function $2 with the rest of the arguments while holding the lock named $1. What the functions start holds it too,
# so a run that was killed is waited for until its pip or uv ends as well. Only what may leave a daemon behind (apt, cargo)
# gets descriptor 9 closed.
locked() {
    local name=$1
    shift
    mkdir -p "$tools" || die "cannot create $tools; set DAGWRIGHT_TOOLS to a folder you may write"
    command -v flock >/dev/null || die "flock is missing; install util-linux"
    (
        exec 9>"$tools/.$name.lock"
        flock -n 9 || {
            say "another run is installing $name; waiting for it"
            flock 9
        }
        "$@"
    )
}

apt_install() {
    local sudo=()
    command -v apt-get >/dev/null || die "cannot install $*: no apt-get here; install it in your system's way"
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || die "cannot install $*: run 'apt-get install $*' as root"
        sudo=(sudo -n)
    fi
    say "installing with apt: $*"
    export DEBIAN_FRONTEND=noninteractive
    {
        "${sudo[@]}" apt-get update -q || say "apt-get update failed; trying with the package lists at hand"
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
    } >&2 9>&- || die "apt-get could not install $*; its output is above"
}

# A shim may be there without an interpreter behind it, and Debian ships Python without ensurepip: so try.
python_works() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

need_python() {
    python_works || locked apt install_python
    python_works || die "$python with its venv module is needed, and installing it did not help"
}

install_python() { python_works || apt_install "$python" "$python-venv" ca-certificates; }

# Sets `uv` to the one in PATH, or else to one of our own.
need_uv() {
    uv=$(command -v uv) && return
    uv=$tools/uv-$uv_version/bin/uv
    [[ -x $uv ]] || {
        need_python
        locked uv install_uv
    }
}

install_uv() {
    local venv=$tools/uv-$uv_version
    [[ -x $uv ]] && return
    say "installing uv $uv_version"
    rm -rf "$venv"
    {
        "$python" -m venv "$venv" && "$venv/bin/python" -m pip install -q --disable-pip-version-check "uv==$uv_version"
    } >&2 || {
        rm -rf "$venv"
        die "could not install uv $uv_version with pip; its output is above"
    }
}

installed() { [[ -x $tools/$1/bin/python ]] && cmp -s "$here/requirements/$1.txt" "$tools/$1/installed.txt"; }

venv() {
    [[ -f $here/requirements/$1.txt ]] || die "requirements/$1.txt is missing; known: $(cd "$here/requirements" && echo ./*.txt)"
    installed "$1" && return
    need_python
    need_uv
    locked "$1" install_venv "$1"
}

install_venv() {
    local name=$1
    installed "$name" && return # Someone else did it while we waited for the lock.
    say "installing $name into $tools/$name"
    rm -rf "${tools:?}/$name"
    {
        "$uv" venv -q --python "$python" "$tools/$name" &&
            "$uv" pip install -q --compile-bytecode -p "$tools/$name/bin/python" -r "$here/requirements/$name.txt"
    } >&2 || die "could not install $name; uv's output is above. Is a Python package index reachable?"
    cp "$here/requirements/$name.txt" "$tools/$name/installed.txt"
}

has_postgres() { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

install_postgres() {
    has_postgres && return
    # Without this Debian starts a cluster of its own on port 5432; the tests start theirs with postgres.sh.
    local conf=/etc/postgresql-common/createcluster.conf
    apt_install postgresql-common
    if ((EUID == 0)) && [[ -f $conf ]]; then
        sed -i 's/^#\?\s*create_main_cluster\s*=.*/create_main_cluster = false/' "$conf"
    fi
    apt_install postgresql postgresql-contrib
    has_postgres || die "PostgreSQL is installed, yet there is no initdb in PATH or /usr/lib/postgresql/*/bin"
}

# Prints the newest suitable Java: the one in PATH, or else one of the system's that is not in it.
find_java() {
    local java version
    for java in "$(command -v java)" $(compgen -G '/usr/lib/jvm/*/bin/java'); do
        version=$("$java" -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p') || continue
        ((${version:-0} >= java_version_min)) && printf '%s\n' "$java" && return
    done
    return 1
}

install_java() {
    local missing=()
    find_java >/dev/null || missing+=("openjdk-$java_version_min-jre-headless")
    command -v mvn >/dev/null || missing+=(maven)
    command -v openssl >/dev/null || missing+=(openssl)
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
}

has_kafka() { [[ -x $1/java ]] && cmp -s "$here/kafka/pom.xml" "$1/installed.xml"; }

install_kafka() {
    local home=$1 java
    has_kafka "$home" && return
    java=$(find_java) || die "Java $java_version_min or newer is needed, and installing it did not help"
    say "installing Apache Kafka into $home"
    rm -rf "$home"
    mkdir -p "$home"
    # A local repository of its own: two Mavens at once may spoil the one they share.
    mvn -B -q -Dstyle.color=never -f "$here/kafka/pom.xml" -Dmaven.repo.local="$home/repository" \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/lib" >&2 ||
        die "could not download Apache Kafka; Maven's output is above. Is a Maven repository reachable?"
    rm -rf "$home/repository"
    ln -s "$java" "$home/java"
    "$here/kafka.sh" archive
    cp "$here/kafka/pom.xml" "$home/installed.xml"
}

has_promtool() { [[ -x $tools/promtool-$promtool_version/bin/promtool ]]; }

# Installed as a package, Prometheus would start a server on port 9090.
install_promtool() {
    local home=$tools/promtool-$promtool_version
    has_promtool && return
    command -v apt-get >/dev/null || die "cannot install promtool: no apt-get here; put it into $home/bin"
    say "installing promtool $promtool_version into $home"
    unpack "$home" prometheus "$promtool_version"
    mkdir "$home/bin"
    mv "$home/package/usr/bin/promtool" "$home/bin/"
    rm -rf "$home/package"
}

# Unpacks version $3 of Debian's package $2 into the folder `package` of $1, which is made anew.
unpack() {
    rm -rf "$1"
    mkdir -p "$1/package"
    cd "$1/package"
    {
        download "$2" "$3" || { ((EUID == 0)) && apt-get update -q && download "$2" "$3"; }
    } >&2 9>&- || die "could not download Debian's package $2 $3; apt-get's output is above"
    dpkg-deb -x "$2"_*.deb .
}

download() { apt-get download -q "$1=$2*"; }

has_compose() { [[ -x $tools/docker-compose-$compose_version/bin/docker-compose ]]; }

# What it needs to read a file; nothing of it is installed, as the packages would bring an engine's client for everybody.
compose_packages=(attr certifi charset-normalizer chardet docker dockerpty docopt dotenv idna jsonschema pkg-resources
    pyrsistent requests six texttable urllib3 websocket yaml)

install_compose() {
    local home=$tools/docker-compose-$compose_version package
    has_compose && return
    command -v apt-get >/dev/null || die "cannot install docker-compose: no apt-get here; put it into $home/bin"
    say "installing docker-compose $compose_version into $home"
    unpack "$home" docker-compose "$compose_version"
    apt-get download -q "${compose_packages[@]/#/python3-}" >&2 9>&- || die "could not download what docker-compose needs; see above"
    for package in python3-*.deb; do dpkg-deb -x "$package" .; done
    rm -- *.deb
    mkdir "$home/bin"
    # Debian's own Python: one of the packages is compiled for it.
    printf '#!/bin/sh\nPYTHONPATH=%q exec /usr/bin/python3 -m compose "$@"\n' "$home/package/usr/lib/python3/dist-packages" \
        >"$home/bin/docker-compose.new"
    chmod +x "$home/bin/docker-compose.new"
    mv "$home/bin/docker-compose.new" "$home/bin/docker-compose"
}

has_faketime() { [[ -f $tools/faketime-$faketime_version/lib/libfaketimeMT.so.1 ]]; }

# Its programs are not needed: the library is loaded by the one program whose clock jumps.
install_faketime() {
    local home=$tools/faketime-$faketime_version
    has_faketime && return
    command -v apt-get >/dev/null || die "cannot install libfaketime: no apt-get here; put libfaketimeMT.so.1 into $home/lib"
    say "installing libfaketime $faketime_version into $home"
    unpack "$home" libfaketime "$faketime_version"
    mkdir "$home/lib"
    mv "$home"/package/usr/lib/*/faketime/libfaketimeMT.so.1 "$home/lib/"
    rm -rf "$home/package"
}

has_strace() { command -v strace >/dev/null; }

install_strace() { has_strace || apt_install strace; }

has_cargo_deny() { command -v cargo-deny >/dev/null || [[ -x $tools/cargo-deny-$cargo_deny_version/bin/cargo-deny ]]; }

install_cargo_deny() {
    has_cargo_deny && return
    command -v cargo >/dev/null || die "cargo is missing; install Rust first"
    say "compiling cargo-deny $cargo_deny_version, which takes minutes"
    cargo install --locked --version "$cargo_deny_version" --root "$tools/cargo-deny-$cargo_deny_version" cargo-deny >&2 9>&- ||
        die "could not install cargo-deny $cargo_deny_version; cargo's output is above"
}

lock() {
    local name
    need_uv
    for name in "$here"/requirements/*.in; do
        name=$(basename "$name" .in)
        {
            echo "# From $name.in by tools.sh lock. Do not edit."
            "$uv" pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate "$here/requirements/$name.in"
        } >"$here/requirements/$name.txt.new" || die "could not resolve requirements/$name.in; uv's output is above"
        mv "$here/requirements/$name.txt.new" "$here/requirements/$name.txt"
    done
}

airflow() {
    local version
    (($#)) || set -- 2.11.2 3.3.2
    for version; do venv "airflow-$version"; done
}

package() {
    [[ -n ${1:-} ]] || usage
    need_uv
    "$uv" pip install -q -p "$tools/airflow-3.3.2/bin/python" --no-deps --target "$1" "$here/../../deploy/airflow" >&2 ||
        die "could not build package dagwright-airflow; uv's output is above"
}

postgres() { has_postgres || locked apt install_postgres; }

kafka() {
    local home
    home=$(kafka_home)
    has_kafka "$home" && return
    locked apt install_java
    locked kafka install_kafka "$home"
}
strace() { has_strace || locked apt install_strace; }

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

case "${1:-}" in
    python) venv tools ;;
    airflow) airflow "${@:2}" ;;
    package) package "${2:-}" ;;
    dagbag) venv dagbag ;;
    wheels) venv wheels ;;
    postgres) postgres ;;
    kafka) kafka ;;
    promtool) has_promtool || locked promtool install_promtool ;;
    faketime) has_faketime || locked faketime install_faketime ;;
    strace) strace ;;
    compose) has_compose || locked compose install_compose ;;
    all)
        venv tools
        airflow
        postgres
        kafka
        has_promtool || locked promtool install_promtool
        has_faketime || locked faketime install_faketime
        strace
        ;;
    lint) has_cargo_deny || locked cargo-deny install_cargo_deny ;;
    lock) lock ;;
    *) usage ;;
esac
