# Weighted pseudo-likelihood of one grouping factor by its definition (Rabe-Hesketh & Skrondal 2006): writes survey.json.
#     Rscript tests/reference/make/survey.R
# The integral over u by the trapezoidal rule on a fine grid; scores and information by numDeriv.
suppressPackageStartupMessages({library(numDeriv); library(jsonlite)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
d <- read.csv(gzfile(file.path(here, "..", "data", "svy2l.csv.gz")))
d$n <- pmax(0, floor(exp(d$y / 3)))
d$o <- findInterval(d$y, c(1, 2.5)) + 1
cluster <- match(d$psu, unique(d$psu)); J <- max(cluster); w2 <- d$w2[match(seq_len(J), cluster)]
grid <- seq(-8, 8, length.out = 801); weight <- dnorm(grid, log = TRUE) + log(grid[2] - grid[1])
scaled <- function(how) {
  s <- ave(d$w1, cluster, FUN = sum); q <- ave(d$w1^2, cluster, FUN = sum); n <- ave(d$w1, cluster, FUN = length)
  switch(how, none = list(d$w1, w2), size = list(d$w1 * n / s, w2), effective = list(d$w1 * s / q, w2),
         gk = list(rep(1, nrow(d)), w2 * (s / n)[match(seq_len(J), cluster)]))
}
X <- cbind(1, d$x, d$z)
# Rows of log f at all nodes; par = (beta, log sd of u, rest).
density <- list(
  gaussian = function(par) {
    eta <- outer(drop(X %*% par[1:3]), exp(par[4]) * grid, "+"); dnorm(d$y, eta, exp(par[5]), log = TRUE)
  },
  binomial = function(par) {
    eta <- outer(drop(X %*% par[1:3]), exp(par[4]) * grid, "+"); plogis(ifelse(d$yb == 1, 1, -1) * eta, log.p = TRUE)
  },
  poisson = function(par) {
    eta <- outer(drop(X %*% par[1:3]), exp(par[4]) * grid, "+"); dpois(d$n, exp(eta), log = TRUE)
  },
  ordinal = function(par) {
    eta <- outer(drop(X[, 2:3] %*% par[1:2]), exp(par[3]) * grid, "+"); cuts <- c(-Inf, par[4], par[4] + exp(par[5]), Inf)
    log(plogis(cuts[d$o + 1] - eta) - plogis(cuts[d$o] - eta))
  })
starts <- list(gaussian = c(2, .6, .5, 0, 0), binomial = c(-.4, .6, .6, 0), poisson = c(.5, .2, .2, -1),
               ordinal = c(.8, .8, 0, -1, .5))
cases <- list(list("gaussian", "size"), list("gaussian", "effective"), list("gaussian", "gk"), list("binomial", "none"),
              list("binomial", "size"), list("poisson", "size"), list("ordinal", "effective"))
strata <- rep(1:3, length.out = J); out <- list()
for (case in cases) {
  w <- scaled(case[[2]]); f <- density[[case[[1]]]]
  by_cluster <- function(par) {
    terms <- rowsum(w[[1]] * f(par), cluster) + matrix(weight, J, length(grid), byrow = TRUE)
    top <- apply(terms, 1, max); top + log(rowSums(exp(terms - top)))
  }
  objective <- function(par) -sum(w[[2]] * by_cluster(par))
  slope <- function(par) -drop(crossprod(jacobian(by_cluster, par), w[[2]]))
  found <- nlminb(starts[[case[[1]]]], objective, slope, control = list(rel.tol = 1e-14, eval.max = 500))$par
  A <- solve(hessian(objective, found)); found <- found - drop(A %*% slope(found))
  A <- solve(hessian(objective, found)); g <- w[[2]] * jacobian(by_cluster, found)
  centred <- g - apply(g, 2, function(v) ave(v, strata)); n <- ave(strata, strata, FUN = length)
  out[[paste(case, collapse = "_")]] <- list(
    par = found, log_likelihood = -objective(found), w_sum = sum(w[[1]]),
    vcov = A %*% (J / (J - 1) * crossprod(g)) %*% A, model_vcov = A,
    # Three strata of clusters, a tenth of the clusters of each sampled.
    stratified_vcov = A %*% crossprod(centred * sqrt(.9 * n / (n - 1))) %*% A)
}
write(toJSON(out, digits = 15, auto_unbox = TRUE, pretty = TRUE), file.path(Sys.getenv("REFERENCE_OUT", file.path(here, "..")), "survey.json"))
