#!/bin/bash
# A study as a Slurm job: a Ray cluster on its nodes for as long as the job lasts, and the search on the first of them.
#
#   once     python3.11 -m venv .venv && .venv/bin/pip install '.[cuda]'      here, on a file system that all nodes see
#   start    sbatch clusters/slurm.sh study.yaml --set resources.gpus_per_trial=1
#   look     squeue --me; tail --follow slurm-JOB.out; thawline status NAME --watch
#   stop     scancel --batch --signal=TERM JOB; the same sbatch goes on from there later
#
# The run folder lies where sbatch was called, so a job that is preempted, loses its first node or nears its time limit
# is queued again and goes on where the study was.
#SBATCH --job-name=thawline
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1    # one Ray per node; it starts the trials
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1           # per node; leave it out for CPU trials
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120    # two minutes before the end: time to stop well and to be queued again
#SBATCH --requeue              # after a lost node or a preemption as well
#SBATCH --open-mode=append     # or a requeued job would begin its log anew
set -euo pipefail
umask 077 # the token, and all that Ray writes, are for this user alone
PATH="$PWD/.venv/bin:$PATH"

if (($# == 0)); then
  echo "A study file must be given: sbatch clusters/slurm.sh study.yaml" >&2
  exit 2
fi

# Two by job, because several jobs may share a node, and below 32768, from where on Linux gives ports to connections. Ray
# draws its other ports from those that are free.
port=$((20000 + SLURM_JOB_ID % 5000 * 2))
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed --quiet 1p) # `head` would break the pipe
head_address=${HEAD_ADDRESS:-$(hostname -I | cut --delimiter=' ' --fields=1)} # set it where nodes have several networks
private=$(mktemp --directory "$HOME/.thawline-job-$SLURM_JOB_ID-XXXXXX")

# Without a token whoever reaches a port runs code there (CVE-2023-48022). It lies in a file, because command lines and
# job records are open to every user of the cluster; `export` hands its path on through srun.
od --address-radix=n --read-bytes=32 --format=x1 /dev/urandom | tr --delete ' \n' > "$private/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token" RAY_USAGE_STATS_ENABLED=0

# On each node: Ray within what Slurm gave, in a folder nobody else can enter, removed with it. Not `ray stop`: that
# would end all of this user's Rays on the node, those of other jobs too.
start_ray() {
  local folder="/tmp/thawline-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}-${SLURM_NODEID:-0}" ray="" stopped=false
  trap 'stopped=true; [[ -z $ray ]] || kill "$ray" 2> /dev/null || true' TERM
  mkdir --mode=700 "$folder" || return
  ray start --block --temp-dir="$folder/ray" --min-worker-port=0 --max-worker-port=0 --disable-usage-stats \
    --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=500000000 "$@" &
  ray=$!
  ! $stopped || kill "$ray"
  wait "$ray" || wait "$ray" || true
  rm --recursive --force "$folder"
}
export -f start_ray

running=()
finish() {
  trap - EXIT
  if ((${#running[@]})); then
    kill "${running[@]}" 2> /dev/null || true
    wait "${running[@]}" || true
  fi
  rm --recursive --force "$private"
}
trap finish EXIT

start_ray --head --port="$port" --node-ip-address="$head_address" --include-dashboard=false \
  --ray-client-server-port=$((port + 1)) &
running+=($!)
if ((SLURM_NNODES > 1)); then
  # --cpus-per-task: srun does not take it over from sbatch.
  srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --ntasks-per-node=1 --exclude="$head_node" \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c 'start_ray "$@"' start_ray --address="$head_address:$port" &
  running+=($!)
fi

# A search plans how many trials run at once from the nodes it finds, so all should be there; after five minutes it goes
# on with those that are.
until ray health-check --address "$head_address:$port" > /dev/null 2>&1; do
  kill -0 "${running[0]}" # the head's own words about why it ended stand above
  sleep 1
done
python - "$head_address:$port" "$SLURM_NNODES" << 'END'
import sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
end = time.monotonic() + 300
while (count := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[2]) and time.monotonic() < end:
    time.sleep(1)
print(f"{count} of {sys.argv[2]} nodes are in the cluster", flush=True)
END

thawline search "$@" --address "$head_address:$port" &
search=$!
again=false
trap 'again=true; kill -TERM "$search"' USR1
trap 'kill -TERM "$search"' TERM
code=0
wait "$search" || code=$?
while kill -0 "$search" 2> /dev/null; do # a signal ended the waiting, not yet the search
  wait "$search" && code=0 || code=$?
done
if $again && ((code != 0)); then
  echo "The time limit is near: job $SLURM_JOB_ID is queued again and goes on with the study"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
