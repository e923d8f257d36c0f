// A simulation that finds nothing proves nothing: it must find out every manager that is wrong on purpose.
import t from 'tap';
import { simulate } from './lease-simulation.ts';
import { loadMutant, mutants } from './mutants.ts';

// A loaded machine takes its time; test/support/run.ts ends a file that hangs.
t.setTimeout(0);

for (const mutant of mutants) {
  t.test(`a manager that ${mutant.name} is found out`, { timeout: 0 }, async t => {
    const { Manager, remove } = await loadMutant(mutant);
    t.teardown(remove);
    for (let i = 0; i < 199; i++) {
      const seed = ((mutant.seed ?? 0) + i) % 199;
      const { violation, kind, tail } = await simulate({ seed, Manager });
      if (violation === undefined) continue;
      t.match(violation, mutant.caught, tail.slice(-8).join('\n'));
      t.comment(`seed ${seed} (${kind}): ${violation}`);
      return;
    }
    t.fail('199 seeds did not find it');
  });
}
