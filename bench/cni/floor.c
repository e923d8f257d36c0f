// What the kernel alone takes for a pod: the least that any plugin can take. Two namespaces of its own, a bridge, and in
// each round a pair whose far end is born in the other namespace, its address, up and default route; then it is deleted.
//
//   floor ROUNDS     prints microseconds, medians: the pair with its bridge port, the rest, until the link is gone again
//
// The deletion is sent by another thread, as lib/netlink/link-removal.ts does: the sender waits on for long after it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ROUNDS = 1000, WARM_UP = 3 };

typedef struct {
  size_t bytes;
  _Alignas(4) char at[1024];
} Message;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void stop(const char *what, int error) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(error));
  exit(1);
}

static void *add(Message *message, size_t bytes) {
  void *place = message->at + message->bytes;
  message->bytes += (bytes + 3) & ~(size_t)3;
  return place;
}

static Message begin(int type, int flags) {
  Message message = {0};
  struct nlmsghdr *header = add(&message, sizeof *header);
  *header = (struct nlmsghdr){.nlmsg_type = (uint16_t)type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)};
  return message;
}

static struct rtattr *attribute(Message *message, int type, const void *value, size_t bytes) {
  struct rtattr *head = add(message, sizeof *head + bytes);
  *head = (struct rtattr){.rta_len = (uint16_t)(sizeof *head + bytes), .rta_type = (uint16_t)type};
  if (bytes > 0) memcpy(head + 1, value, bytes);
  return head;
}

static void text(Message *message, int type, const char *value) { attribute(message, type, value, strlen(value) + 1); }
static void number(Message *message, int type, uint32_t value) { attribute(message, type, &value, sizeof value); }
static void close_nest(Message *message, struct rtattr *nest) {
  nest->rta_len = (uint16_t)(message->at + message->bytes - (char *)nest);
}

static void address(Message *message, int type, const char *value) {
  struct in_addr bytes;
  inet_aton(value, &bytes);
  attribute(message, type, &bytes, sizeof bytes);
}

static int open_socket(void) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) stop("socket", errno);
  return fd;
}

// The kernel's error number, 0 for success.
static int ask(int fd, Message *message) {
  ((struct nlmsghdr *)message->at)->nlmsg_len = (uint32_t)message->bytes;
  if (send(fd, message->at, message->bytes, 0) < 0) stop("send", errno);
  for (;;) {
    _Alignas(4) char answer[16384];
    if (recv(fd, answer, sizeof answer, 0) < 0) stop("recv", errno);
    if (((struct nlmsghdr *)answer)->nlmsg_type == NLMSG_ERROR) return -*(int *)NLMSG_DATA(answer);
  }
}

static void must(int fd, Message *message, const char *what) {
  const int error = ask(fd, message);
  if (error != 0) stop(what, error);
}

static Message link_message(int type, int flags, const char *name, bool up) {
  Message message = begin(type, flags);
  struct ifinfomsg *body = add(&message, sizeof *body);
  if (up) body->ifi_flags = body->ifi_change = IFF_UP;
  text(&message, IFLA_IFNAME, name);
  return message;
}

static void make_bridge(int fd) {
  Message message = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "br0", true);
  attribute(&message, IFLA_ADDRESS, "\2\1\2\3\4\5", 6);
  struct rtattr *info = attribute(&message, IFLA_LINKINFO, NULL, 0);
  text(&message, IFLA_INFO_KIND, "bridge");
  close_nest(&message, info);
  must(fd, &message, "bridge");
}

static void queues(Message *message) {
  number(message, IFLA_NUM_TX_QUEUES, 1);
  number(message, IFLA_NUM_RX_QUEUES, 1);
}

static void make_pair(int fd, uint32_t bridge, int pod) {
  Message message = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "veth0", true);
  number(&message, IFLA_MASTER, bridge);
  queues(&message);
  struct rtattr *info = attribute(&message, IFLA_LINKINFO, NULL, 0);
  text(&message, IFLA_INFO_KIND, "veth");
  struct rtattr *data = attribute(&message, IFLA_INFO_DATA, NULL, 0);
  struct rtattr *peer = attribute(&message, VETH_INFO_PEER, NULL, 0);
  add(&message, sizeof(struct ifinfomsg));
  text(&message, IFLA_IFNAME, "eth0");
  queues(&message);
  number(&message, IFLA_NET_NS_FD, (uint32_t)pod);
  close_nest(&message, peer);
  close_nest(&message, data);
  close_nest(&message, info);
  must(fd, &message, "pair");
}

static void configure(int fd, uint32_t index) {
  Message ip = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  struct ifaddrmsg *body = add(&ip, sizeof *body);
  *body = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = index};
  address(&ip, IFA_LOCAL, "10.9.0.2");
  address(&ip, IFA_ADDRESS, "10.9.0.2");
  must(fd, &ip, "address");
  Message up = link_message(RTM_NEWLINK, 0, "eth0", true);
  must(fd, &up, "up");
  Message route = begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  struct rtmsg *way = add(&route, sizeof *way);
  *way = (struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
  address(&route, RTA_GATEWAY, "10.9.0.1");
  must(fd, &route, "route");
}

static void *delete_pair(void *argument) {
  Message message = link_message(RTM_DELLINK, 0, "veth0", false);
  must(*(int *)argument, &message, "delete");
  return NULL;
}

static double until_gone(int fd, int sender) {
  const double start = now();
  pthread_t thread;
  if (pthread_create(&thread, NULL, delete_pair, &sender) != 0) stop("thread", errno);
  for (;;) {
    Message message = link_message(RTM_GETLINK, 0, "veth0", false);
    if (ask(fd, &message) == ENODEV) break;
  }
  const double took = now() - start;
  pthread_join(thread, NULL);
  return took;
}

static int compare(const void *a, const void *b) {
  const double difference = *(const double *)a - *(const double *)b;
  return (difference > 0) - (difference < 0);
}

int main(int count, char **arguments) {
  const int rounds = count == 2 ? atoi(arguments[1]) : 0;
  if (rounds < 1 || rounds > MOST_ROUNDS) {
    fprintf(stderr, "usage: floor ROUNDS, 1 to %d\n", MOST_ROUNDS);
    return 2;
  }
  if (unshare(CLONE_NEWNET) != 0) stop("unshare", errno);
  const int pod = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), inside = open_socket();
  Message loopback = link_message(RTM_NEWLINK, 0, "lo", true);
  must(inside, &loopback, "lo");
  if (unshare(CLONE_NEWNET) != 0) stop("unshare", errno);
  const int host = open_socket(), sender = open_socket();
  make_bridge(host);
  const uint32_t bridge = if_nametoindex("br0");
  static double parts[3][MOST_ROUNDS];
  for (int round = -WARM_UP; round < rounds; round++) {
    const double start = now();
    make_pair(host, bridge, pod);
    const double paired = now();
    // Indexes of a namespace are given out in order; lo is 1.
    configure(inside, (uint32_t)(round + WARM_UP + 2));
    const double took[] = {paired - start, now() - paired, until_gone(host, sender)};
    for (int i = 0; round >= 0 && i < 3; i++) parts[i][round] = took[i];
  }
  for (int i = 0; i < 3; i++) {
    qsort(parts[i], (size_t)rounds, sizeof parts[i][0], compare);
    printf("%.0f\n", parts[i][rounds / 2]);
  }
  return 0;
}
