#!/bin/sh
# A stand-in for `adb`, for tests alone: one phone, EMULATED01, whose /data/local/tmp is the folder $STAND_IN_ROOT.
# $STAND_IN_ROOT/mode says what goes wrong: nothing, none, unauthorized, full, unplugged, hang.
mode=$(cat "$STAND_IN_ROOT/mode" 2>/dev/null)
map() { printf '%s' "$1" | sed "s#/data/local/tmp#$STAND_IN_ROOT#g"; }

case "$1" in
devices)
    echo "List of devices attached"
    case "$mode" in
    none) ;;
    unauthorized) printf 'EMULATED01\tunauthorized\n' ;;
    two) printf 'EMULATED01\tdevice\nEMULATED02\tdevice\n' ;;
    *) printf 'EMULATED01\tdevice\n' ;;
    esac
    echo
    exit 0
    ;;
-s)
    serial=$2
    shift 2
    ;;
esac

[ "$serial" = EMULATED01 ] || { echo "error: device '$serial' not found" >&2; exit 1; }

case "$1" in
push)
    [ "$mode" = full ] && { echo "adb: error: failed to copy '$2' to '$3': remote No space left on device" >&2; exit 1; }
    cp "$2" "$(map "$3")"
    ;;
shell)
    shift
    streaming=no
    [ "$1" = -T ] && { streaming=yes; shift; }
    command=$(map "$*")
    if [ "$streaming" = yes ] && [ "$mode" = unplugged ]; then
        sh -c "$command" | head -n 1
        echo "error: device '$serial' not found" >&2
        exit 1
    fi
    [ "$streaming" = yes ] && [ "$mode" = hang ] && exec sleep 60
    case "$command" in getprop*) echo "Stand-in phone"; exit 0 ;; esac
    exec sh -c "$command"
    ;;
*)
    echo "stand-in: unknown command $1" >&2
    exit 2
    ;;
esac
