// The learner plays lesson 1 by the book.
import t from 'tap';
import { playLesson, skipLessons } from '../support/lesson.ts';

t.setTimeout(300_000);
t.test('lesson 1', { skip: skipLessons }, async t => playLesson(t, 1));
