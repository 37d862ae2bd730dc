#!/usr/bin/env bash
# A Slurm of one node on this machine, without munge, in a folder of its own: to try the templates
# for real. Needs root and Debian's packages slurmctld, slurmd and slurm-client (22.05).
#
#   ci/slurm/local.sh start DIR    starts it and prints the SLURM_CONF to export
#   ci/slurm/local.sh stop DIR     stops what `start` started, and nothing else
#
# auth/none trusts everybody who can reach the port: for a test on localhost, never for a cluster.
set -euo pipefail
usage() { echo "usage: $0 start|stop DIR" >&2; exit 2; }
(($# == 2)) || usage
mkdir -p "$2"
dir=$(realpath "$2")
conf=$dir/slurm.conf

start() {
  local host cpus memory
  host=$(hostname -s)
  cpus=$(nproc)
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
  mkdir -p "$dir"/{state,spool}
  cat >"$conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  SLURM_CONF=$conf slurmctld -f "$conf" -c
  SLURM_CONF=$conf slurmd -f "$conf" -N "$host"
  for _ in $(seq 60); do
    if SLURM_CONF=$conf sinfo -h -o %T 2>/dev/null | grep -q '^idle'; then
      echo "SLURM_CONF=$conf"
      return 0
    fi
    sleep 1
  done
  echo "error: the node did not become idle within a minute" >&2
  echo "  help: see $dir/slurmctld.log and $dir/slurmd.log" >&2
  return 1
}

stop() {
  local name pid
  for name in slurmd slurmctld; do
    [[ -s $dir/$name.pid ]] || continue
    pid=$(<"$dir/$name.pid")
    # Only a process that is still what its file says.
    [[ $(ps -o comm= -p "$pid" 2>/dev/null) == "$name" ]] || continue
    kill "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null && sleep 0.1 || break; done
  done
}

case $1 in
  start) start ;;
  stop) stop ;;
  *) usage ;;
esac
