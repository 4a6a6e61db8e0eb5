/** Debian's mosquitto as a broker, to hold beside ours what another broker does. It queues without a bound. */
import { type MosquittoProcess, startMosquittoProcess } from './mosquitto-process.ts'

/** Lines of mosquitto.conf are added. */
export function startMosquitto(more: readonly string[] = []): Promise<MosquittoProcess> {
  return startMosquittoProcess(() => ['max_queued_messages 0', 'max_inflight_messages 0', ...more])
}
