# Shared by the scripts of this folder: sourced, never run.
# shellcheck shell=bash

# Where tools.sh installs, and where the other scripts look.
# shellcheck disable=SC2034 # The sourcing scripts read it.
tools="${DAGWRIGHT_TOOLS:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/dagwright}"

# Where tools.sh puts Apache Kafka; its pom says which version.
kafka_home() {
    local version
    version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$(dirname "$self")/kafka/pom.xml")
    printf '%s/kafka-%s\n' "$tools" "$version"
}

self=$(readlink -f "$0")

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Whether process $1 runs with folder $2 as its working folder, as every server here does. A pid file outlives its process, the
# number may be another's by now, and a killed process that nobody reaps is still listed; none of these has that folder.
runs_in() { [[ -n $1 && $(readlink "/proc/$1/cwd" 2>/dev/null) == "$2" ]]; }

alive() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    stat=${stat##*) } # What follows the command's name, which may hold anything.
    [[ $stat != Z* ]]
}

# Starts the script's `watch DIR OWNER`, which waits for the end of process OWNER, in the background. In a session of its own,
# as a harness may be killed with its process group; with nothing inherited, as a caller may read our output until its end.
# Call it before the server starts, so that no end of the harness comes too early.
watch_owner() {
    printf '%s\n' "$2" >"$1/owner"
    setsid "$self" watch "$1" "$2" </dev/null >/dev/null 2>&1 &
}

# Returns once process $2 has gone; false if by then it no longer owns the server of folder $1 (stopped, or another's).
owner_gone() {
    local dir=$1 owner=$2
    while alive "$owner"; do
        owns || return 1
        sleep 0.5
    done
    owns
}

owns() { [[ $(cat "$dir/owner" 2>/dev/null) == "$owner" ]]; }
