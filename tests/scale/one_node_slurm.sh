#!/usr/bin/env bash
# A Slurm cluster of this one machine, without systemd, to try the files of examples/slurm: one_node_slurm.sh start|stop
#
# Needs root and Debian's packages: apt-get install slurm-wlm munge
set -euo pipefail
folder=${SLURM_FOLDER:-/tmp/one-node-slurm}
export SLURM_CONF=$folder/slurm.conf

start() {
    mkdir -p "$folder"/{state,spool,log} /run/munge
    [ -s /etc/munge/munge.key ] || /usr/sbin/mungekey --create
    chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
    pgrep -x munged >/dev/null || setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged
    cores=$(nproc)
    cat >"$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$(hostname)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ReturnToService=2
KillWait=30
JobRequeue=1
# More tasks than cores: what counts here is the order of events.
NodeName=$(hostname) CPUs=$cores State=UNKNOWN
PartitionName=all Nodes=$(hostname) Default=YES MaxTime=INFINITE State=UP
END
    # srun and scontrol find the cluster by SLURM_CONF, as do the jobs.
    slurmctld
    slurmd
    for _ in $(seq 30); do
        sinfo --noheader --format=%T 2>/dev/null | grep -q idle && { sinfo; echo "export SLURM_CONF=$SLURM_CONF"; return; }
        sleep 1
    done
    sinfo || true
    echo "the node did not come up; see $folder/log" >&2
    return 1
}

stop() {
    for daemon in slurmd slurmctld; do
        [ -f "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")" || true
    done
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) sed -n '2,4s/^# //p' "$0"; exit 2 ;;
esac
