#include "core/crypto.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct crypto_thread {
	struct crypto *crypto;
	struct mailbox *queue;
	sem_t wake;
	pthread_t thread;
	bool started;
	unsigned index;
};

struct crypto {
	struct crypto_opts opts;
	_Atomic unsigned turn; /* the thread that the next job is offered to first */
	_Atomic bool stopping;
	unsigned n;
	struct crypto_thread thread[CRYPTO_THREADS_MAX];
};

/* The worker's mailbox may be full: only this thread waits, workers never do. */
static void hand_back(struct crypto *c, struct crypto_job *j)
{
	struct mailbox_msg msg = {.kind = c->opts.mail_kind, .ptr = j};
	struct timespec nap = {0, 1000000};

	while (worker_post(j->from, &msg, NULL))
		nanosleep(&nap, NULL);
}

static void sleep_until_mail(struct crypto_thread *t)
{
	mailbox_sleep(t->queue);
	if (!mailbox_ready(t->queue) && !atomic_load(&t->crypto->stopping))
		while (sem_wait(&t->wake) && errno == EINTR)
			;
	mailbox_awake(t->queue);
}

static void be_patient(void)
{
	struct sched_param none = {0};

	/* Neither needs a privilege, and work done at the wrong priority is still done. */
	(void)sched_setscheduler(0, SCHED_BATCH, &none);
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), getpriority(PRIO_PROCESS, 0) + CRYPTO_NICE);
}

static void *thread_main(void *arg)
{
	struct crypto_thread *t = arg;
	char name[16];

	snprintf(name, sizeof name, "crypto-%u", t->index);
	prctl(PR_SET_NAME, name);
	be_patient();
	for (;;) {
		struct mailbox_msg msg;

		if (mailbox_pop(t->queue, &msg)) {
			struct crypto_job *j = msg.ptr;

			j->run(j);
			hand_back(t->crypto, j);
			/* A worker that shares the CPU and was put off by a tick would have to wait
			 * for the next one. */
			sched_yield();
		} else if (atomic_load(&t->crypto->stopping)) {
			return NULL;
		} else {
			sleep_until_mail(t);
		}
	}
}

static int start(struct crypto *c, unsigned i)
{
	struct crypto_thread *t = &c->thread[i];
	int err = mailbox_create(c->opts.queue, &t->queue);

	if (err)
		return err;
	t->crypto = c;
	t->index = i;
	sem_init(&t->wake, 0, 0);
	c->n++;
	err = pthread_create(&t->thread, NULL, thread_main, t);
	t->started = !err;
	return -err;
}

int crypto_create(const struct crypto_opts *opts, struct crypto **ret)
{
	struct crypto *c;

	if (!opts->threads || opts->threads > CRYPTO_THREADS_MAX)
		return -EINVAL;
	c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->opts = *opts;
	for (unsigned i = 0; i < opts->threads; i++) {
		int err = start(c, i);

		if (err) {
			crypto_stop(c);
			crypto_destroy(c);
			return err;
		}
	}
	*ret = c;
	return 0;
}

int crypto_submit(struct crypto *c, struct crypto_job *j, struct worker *from)
{
	struct mailbox_msg msg = {.ptr = j};
	unsigned first = atomic_fetch_add_explicit(&c->turn, 1, memory_order_relaxed);

	if (atomic_load(&c->stopping))
		return -EAGAIN;
	j->from = from;
	for (unsigned i = 0; i < c->n; i++) {
		struct crypto_thread *t = &c->thread[(first + i) % c->n];

		if (mailbox_push(t->queue, &msg))
			continue;
		if (mailbox_take_wake(t->queue))
			sem_post(&t->wake);
		return 0;
	}
	return -EAGAIN;
}

void crypto_stop(struct crypto *c)
{
	if (!c)
		return;
	atomic_store(&c->stopping, true);
	for (unsigned i = 0; i < c->n; i++) {
		sem_post(&c->thread[i].wake);
		if (c->thread[i].started)
			pthread_join(c->thread[i].thread, NULL);
		c->thread[i].started = false;
	}
}

void crypto_destroy(struct crypto *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->n; i++) {
		struct crypto_thread *t = &c->thread[i];
		struct mailbox_msg msg;

		while (mailbox_pop(t->queue, &msg)) {
			struct crypto_job *j = msg.ptr;

			j->drop(j);
		}
		mailbox_destroy(t->queue);
		sem_destroy(&t->wake);
	}
	free(c);
}
