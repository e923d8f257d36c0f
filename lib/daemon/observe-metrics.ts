/** `GET /metrics`: this daemon's metrics, on the control socket and on the health endpoint. */
import type { ControlRoutes } from '../observe/control.ts';
import { metricFamilies } from '../observe/metrics.ts';
import { ProcessMeter } from '../observe/process-figures.ts';
import { METRICS_TYPE, writeMetrics } from '../observe/prometheus.ts';
import type { Undo } from '../util/undo.ts';
import { statusOf } from './observe-status.ts';
import type { Observed } from './observed.ts';

export function observeMetrics(observed: Observed, routes: ControlRoutes, undo: Undo): void {
  const meter = new ProcessMeter();
  undo.push('the look at the process', () => meter.close());
  routes.add('GET', '/metrics', () => {
    const input = {
      status: statusOf(observed),
      ...observed.meters,
      process: meter.read(),
      nodeVersion: process.versions.node,
      nowMs: observed.parts.clock.nowMs(),
    };
    return { text: writeMetrics(metricFamilies(input)), type: METRICS_TYPE };
  });
}
