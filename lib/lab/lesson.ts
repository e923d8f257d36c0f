/**
 * Lessons: a lab, a task, and goals that are looked at. The text of a lesson is docs/lessons/; here is what must be there
 * for it and what shows that it was done. A goal that was reached once stays reached, unless it is `lasting`.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, TulleError } from '../util/errors.ts';
import { type Note, readNotes } from './notebook.ts';
import type { LabState } from './state.ts';

export interface Goal {
  /** What is to be done, as an order. */
  readonly task: string;
  /** The command, or where to look, for who is stuck. */
  readonly hint: string;
  /** Must be true at every look, not only once, and only counts when all goals before it are reached. */
  readonly lasting?: boolean;
  /** True, or what is missing, as the rest of a sentence. */
  reached(scene: Scene): Promise<true | string> | true | string;
}

export interface Lesson {
  readonly number: number;
  readonly title: string;
  /** The page in docs/lessons/. */
  readonly page: string;
  /** One sentence: what it is about, and why. */
  readonly why: string;
  /** Of `lab up`, beside the name. */
  readonly up: readonly string[];
  /** After the lab is up. */
  setUp?(state: LabState): Promise<void>;
  readonly goals: readonly Goal[];
}

/** What a goal may look at. */
export interface Scene {
  readonly state: LabState;
  readonly notes: readonly Note[];
  /** What was said with --answer, the latest last. */
  readonly answers: readonly string[];
}

/** What is remembered of a lesson, in ROOT/lesson-N/lesson.json: it goes with the lab. */
interface Memory {
  reached: number[];
  answers: string[];
  /** The lab was prepared: a start that was interrupted before that goes on there. */
  isSetUp: boolean;
}

export interface GoalResult {
  readonly goal: Goal;
  readonly done: boolean;
  /** What is missing; '' when it is done. */
  readonly missing: string;
}

export const lessonLab = (lesson: Lesson): string => `lesson-${lesson.number}`;
const memoryFile = (state: LabState): string => join(state.directory, 'lesson.json');
const MOST_ANSWERS = 100;

function loadMemory(state: LabState): Memory {
  try {
    const {
      reached,
      answers,
      isSetUp = false,
    } = JSON.parse(readFileSync(memoryFile(state), 'utf8')) as Partial<Memory>;
    if (Array.isArray(reached) && Array.isArray(answers)) return { reached, answers, isSetUp };
  } catch {
    // none yet
  }
  return { reached: [], answers: [], isSetUp: false };
}

function saveMemory(state: LabState, memory: Memory): void {
  const path = memoryFile(state);
  writeFileSync(`${path}.new`, JSON.stringify(memory), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Notes what somebody answers to the lesson's question. */
export function answer(state: LabState, text: string): void {
  const memory = loadMemory(state);
  memory.answers = [...memory.answers, text.trim().slice(0, 200)].slice(-MOST_ANSWERS);
  saveMemory(state, memory);
}

/** Prepares the lab, if the lesson wants that and it has not been done. */
export async function setUp(lesson: Lesson, state: LabState): Promise<void> {
  if (!needsSetUp(lesson, state)) return;
  await lesson.setUp?.(state);
  saveMemory(state, { ...loadMemory(state), isSetUp: true });
}

export const needsSetUp = (lesson: Lesson, state: LabState): boolean =>
  lesson.setUp !== undefined && !loadMemory(state).isSetUp;

/** Looks at every goal. What cannot be looked at is not reached, and says why. */
export async function lookAt(lesson: Lesson, state: LabState): Promise<GoalResult[]> {
  const memory = loadMemory(state);
  const scene: Scene = { state, notes: readNotes(state), answers: memory.answers };
  const results: GoalResult[] = [];
  for (const [index, goal] of lesson.goals.entries()) {
    const known = memory.reached.includes(index);
    const isSettled = known && goal.lasting !== true;
    // What was never broken is not mended.
    const isEarly = goal.lasting === true && results.some(({ done }) => !done);
    const found = isSettled ? true : isEarly ? 'first what stands above' : await look(goal, scene);
    if (found === true && !known) memory.reached.push(index);
    results.push({ goal, done: found === true, missing: found === true ? '' : found });
  }
  saveMemory(state, memory);
  return results;
}

async function look(goal: Goal, scene: Scene): Promise<true | string> {
  try {
    return await goal.reached(scene);
  } catch (error) {
    if (!(error instanceof TulleError)) throw error;
    return messageOf(error);
  }
}

/** The results as a person reads them. */
export function report(lesson: Lesson, results: readonly GoalResult[], withHints: boolean): string {
  const lines = results.flatMap(({ goal, done, missing }) => [
    `  ${done ? '✔' : '✘'} ${goal.task}`,
    ...(done ? [] : [`      missing: ${missing}`]),
    ...(done || !withHints ? [] : [`      hint: ${goal.hint}`]),
  ]);
  const left = results.filter(({ done }) => !done).length;
  const end =
    left === 0
      ? `Lesson ${lesson.number} is done. "tulle lesson ${lesson.number} --down" takes the lab down.`
      : `${left} of ${results.length} to go.${withHints ? '' : ` "tulle lesson ${lesson.number} --hint" helps.`}`;
  return `${[`Lesson ${lesson.number}: ${lesson.title}`, '', ...lines, '', end].join('\n')}\n`;
}
